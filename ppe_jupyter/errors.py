"""Every error a user can meet, in one tree.

::

    PpeError
    ├── UserError                 the user asked for something that cannot be
    │   ├── SettingsError         ~/.ppe-config or a PPE_* variable is wrong
    │   ├── SpecError             a cluster specification contradicts itself or the account's facts
    │   ├── NoSuchCluster         no cluster of that name, or none to choose, or too many
    │   ├── UsageError            a magic or a command was typed wrongly
    │   ├── Forgotten             a plan or an operation that is not known (any more)
    │   ├── Occupied              another operation of this process is at work on the cluster
    │   ├── NotYours              somebody else's cluster, and nobody has agreed to that
    │   └── ValueRefused          a value that cannot cross to R or back without loss
    ├── CloudError                the cloud refused or could not
    │   ├── CapacityError         no such machines left in the zones that were tried
    │   ├── CredentialsError      none, expired, or not allowed to do this
    │   ├── LaunchFailed          a launch ended early; says what remains and how to remove it
    │   └── LocalCloudUnavailable the embedded cloud cannot run on this machine
    ├── RemoteError               the far side of the SSH connection failed
    │   ├── SshError
    │   │   ├── Unreachable       nothing answers there (yet)
    │   │   ├── HostKeyMismatch   someone else answers: never retried
    │   │   ├── UnknownHost       a host whose key nobody has vouched for
    │   │   ├── AuthenticationRefused
    │   │   └── ConnectionLost    it answered, then the line was cut
    │   ├── RemoteCommandFailed   a command on a node ended with a status other than 0
    │   │   └── RunFailed         a script that was run on a cluster did
    │   ├── TransferFailed        files could not be sent or fetched, or not all of them
    │   ├── SetupFailed           a node could not be configured
    │   │   └── PartlyInstalled   packages are not on all nodes
    │   ├── NotAsLocked           a cluster runs, but not with the software that a lock wants
    │   ├── NoRStudio             RStudio Server is not there, too old, or does not start
    │   ├── RemoteRError          R signalled an error: R's own words
    │   ├── RemoteInterrupted     the evaluation was interrupted; the session lives
    │   ├── RSessionDied          the R process is gone; a fresh one was started
    │   ├── RankFailed            one rank of an MPI program failed or was lost
    │   └── TaskFailed            one task of a map failed
    └── NothingToDo               already so: information, not failure

``str(error)`` says what happened, to what, and what to do next; front ends show only that. What a program
may want to look at is an attribute. Knows nothing of the rest of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PpeError(Exception):
    """Root of the tree; never raised itself."""


class UserError(PpeError):
    """The user asked for something that cannot be; nothing was changed."""


class SettingsError(UserError):
    """A setting is missing, malformed, or in a file that others can read."""


class SpecError(UserError):
    """A cluster specification that cannot be launched; ``problems`` has one line for each reason."""

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class NoSuchCluster(UserError):
    """No cluster of that name, or no single one to choose."""


class UsageError(UserError):
    """A magic or a command was typed wrongly."""


class Forgotten(UserError):
    """A plan or an operation of that id is not known, or not any more."""


class Occupied(UserError):
    """Another operation of this process is at work on that cluster."""


class NotYours(UserError):
    """Somebody else launched that cluster; what is asked is not done unless the user agrees to that."""


class ValueRefused(UserError):
    """A value cannot cross between Python and R without loss; the message names the column."""


class CloudError(PpeError):
    """The cloud refused a call; ``code`` is EC2's error code, ``operation`` the API call."""

    def __init__(self, message: str, *, code: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation


class CapacityError(CloudError):
    """No capacity for the instance type where it was asked for; ``tried`` has (zone, what, why not) of each try."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        operation: str = "",
        tried: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        super().__init__(message, code=code, operation=operation)
        self.tried = tuple(tried)


class CredentialsError(CloudError):
    """The cloud does not know the caller, or the caller may not do this."""


class LaunchFailed(CloudError):
    """A launch ended early; ``leftovers`` are the ids of what could not be removed."""

    def __init__(self, message: str, *, leftovers: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.leftovers = tuple(leftovers)


class LocalCloudUnavailable(CloudError):
    """The embedded cloud cannot run here; one sentence says what is missing and what to do."""


class RemoteError(PpeError):
    """The far side of the SSH connection failed."""


class SshError(RemoteError):
    """The SSH connection to a node could not be made or kept; ``host`` is its address."""

    def __init__(self, message: str, *, host: str = "") -> None:
        super().__init__(message)
        self.host = host


class Unreachable(SshError):
    """Nothing answers at that address and port (yet)."""


class HostKeyMismatch(SshError):
    """The host that answers is not the one whose key we know: do not connect."""


class UnknownHost(SshError):
    """The host is not among the known ones; ``key`` is what it shows, "ssh-ed25519 AAAA…", and its fingerprint."""

    def __init__(self, message: str, *, host: str = "", key: str = "", fingerprint: str = "") -> None:
        super().__init__(message, host=host)
        self.key = key
        self.fingerprint = fingerprint


class AuthenticationRefused(SshError):
    """The host does not accept the key."""


class ConnectionLost(SshError):
    """The connection was cut; what runs on the node goes on."""


class RemoteCommandFailed(RemoteError):
    """A command on a node ended with ``status`` other than 0."""

    def __init__(self, message: str, *, command: str, status: int, stderr: str) -> None:
        super().__init__(message)
        self.command = command
        self.status = status
        self.stderr = stderr


class RunFailed(RemoteCommandFailed):
    """A script that was run ended with ``status`` other than 0; ``ppe run`` ends with the same."""


class TransferFailed(RemoteError):
    """Files could not be sent or fetched; ``failures`` says why of each, if some could."""

    def __init__(self, message: str, *, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


class SetupFailed(RemoteError):
    """A node could not be configured; ``node`` is its private address, if it was one node."""

    def __init__(self, message: str, *, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


class PartlyInstalled(SetupFailed):
    """Packages are on the master, and will be on nodes to come, but not on all that there are."""


class NotAsLocked(RemoteError):
    """A cluster runs, but its nodes' software is not the lock's; ``differences`` (cloud/lock.py's) say where."""

    def __init__(self, message: str, *, differences: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


class NoRStudio(RemoteError):
    """There is no RStudio Server to speak to: ``kind`` is missing, old or failed."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class RemoteRError(RemoteError):
    """R signalled an error. ``str()`` is what R's console would show.

    ``condition`` is R's ``conditionMessage``, ``call`` the deparsed call or "", ``traceback`` the deparsed
    frames, outermost first, ``line`` the line of the cell, from 1, if it is known.
    """

    def __init__(
        self,
        condition: str,
        *,
        call: str = "",
        traceback: Sequence[str] = (),
        text: str = "",
        line: int | None = None,
    ) -> None:
        super().__init__(text or (f"Error in {call} : {condition}" if call else f"Error: {condition}"))
        self.condition = condition
        self.call = call
        self.traceback = tuple(traceback)
        self.line = line


class RemoteInterrupted(RemoteError):
    """The evaluation was interrupted; the R session and its variables are still there."""


class RSessionDied(RemoteError):
    """The R process ended (quit(), a signal, MPI_Abort); a fresh one has been started."""


class RankFailed(RemoteError):
    """One rank of an MPI program failed or was lost; ``rank`` and ``node`` name it."""

    def __init__(self, message: str, *, rank: int | None = None, node: str | None = None) -> None:
        super().__init__(message)
        self.rank = rank
        self.node = node


class TaskFailed(RemoteError):
    """A task of a map failed: ``index`` from 0, ``traceback`` on the node, ``exception`` itself if it could be sent."""

    def __init__(
        self, message: str, *, index: int, traceback: str = "", exception: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.index = index
        self.traceback = traceback
        self.exception = exception


class NothingToDo(PpeError):
    """The wished state holds already."""
