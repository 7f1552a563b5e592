"""EBS volumes and their snapshots."""

from __future__ import annotations

from .session import Session


class Volumes(Session):
    """Verbs on volumes."""
