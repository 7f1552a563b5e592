"""What the R of a session is doing, and what it may do next. Pure, and with no imports: commands ask for it too."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """What R is doing. See TRANSITIONS."""

    STARTING = "starting"
    IDLE = "idle"
    TAKING = "taking a request"
    BUSY = "busy"
    RESCUED = "being rescued"
    DOWN = "down"


TRANSITIONS = {
    State.STARTING: {State.IDLE, State.STARTING, State.DOWN},
    State.IDLE: {State.TAKING, State.STARTING},
    State.TAKING: {State.BUSY, State.STARTING, State.IDLE},
    State.BUSY: {State.IDLE, State.STARTING, State.RESCUED},
    State.RESCUED: {State.STARTING},
    State.DOWN: {State.STARTING},
}
