"""Every error that EagleRay raises on purpose.

EagleRayError                 one line for people; `exit_code` for the command line
├── UserError                 (2) the caller's input is wrong
│   ├── ProblemsError         all problems at once
│   │   ├── SpecError         of an experiment file
│   │   └── DataError         of data that cannot be read or learned from
│   ├── CodeError             the user's own `module:function` fails to import or to answer
│   │   └── MissingModuleError    it imports a module that is not installed on this machine
│   ├── RequestError          a prediction request; names the field
│   │   └── UnavailableError  503: nothing is wrong with it, but nobody can answer it now
│   ├── NotFoundError         no such model, version, alias or search
│   └── ConflictError         another process changed it first
├── StorageError              (1) names endpoint, bucket and key
│   ├── ObjectNotFoundError
│   ├── ObjectExistsError     put-if-absent: the key is taken
│   ├── ObjectChangedError    compare-and-swap: the object is not the one that was read
│   ├── BucketNotFoundError
│   ├── AccessDeniedError
│   ├── StorageFullError
│   ├── StorageUnavailableError   refused, hung, or cut in the middle; retried before it is raised
│   ├── CorruptObjectError    content does not match its hash, or is not what it must be
│   ├── NewerFormatError      written by a newer EagleRay
│   └── LeaseLostError        another process holds the lease that allowed this write
├── TrainingError             (1) one trial cannot go on, such as a loss that is NaN
├── SearchError               (1) no trial of a search gave a model
├── TrackingError             (1) MLflow's server does not answer, or refuses
├── ClusterError              (1) a cluster fails, refuses, or cannot be reached any more
└── ServingError              (1) a version that cannot be served: golden rows not reproduced
    ├── NoRoomError           it does not fit into memory beside those in use
    └── LostError             the process that was to answer has ended
"""


class EagleRayError(Exception):
    """Root of the tree; the command line exits with `exit_code`."""

    exit_code = 1


class UserError(EagleRayError):
    """The caller's input is wrong; the command line exits with 2."""

    exit_code = 2


class ProblemsError(UserError):
    """Several problems, a line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class SpecError(ProblemsError):
    """An experiment file with problems."""


class DataError(ProblemsError):
    """Data that cannot be read or learned from."""


class CodeError(UserError):
    """The user's own `module:function` fails to import, or returns something invalid."""


class MissingModuleError(CodeError):
    """The user's own code imports `module`, which is not installed on this machine."""

    def __init__(self, message: str, module: str = "") -> None:
        super().__init__(message)
        self.module = module


class RequestError(UserError):
    """A prediction request that breaks the model's schema.

    `field` is the dotted path of the wrong field, such as `instances[3].age`; `details` has path
    and message of each, where there are several.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        status: int = 422,
        details: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.field = field
        self.status = status
        self.details = details


class UnavailableError(RequestError):
    """Nobody can answer a request now, whatever is in it; it may be sent again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503)


class NotFoundError(UserError):
    """No such model, version, alias or search."""


class ConflictError(UserError):
    """Another process changed it first; read again and repeat."""


class StorageError(EagleRayError):
    """Storage failed; the message names endpoint, bucket and key."""


class ObjectNotFoundError(StorageError):
    """No object has this key."""


class ObjectExistsError(StorageError):
    """Put-if-absent found the key taken."""


class ObjectChangedError(StorageError):
    """Compare-and-swap found another object than the one that was read."""


class BucketNotFoundError(StorageError):
    """The bucket, or the root folder, does not exist."""


class AccessDeniedError(StorageError):
    """Missing, wrong or insufficient credentials."""


class StorageFullError(StorageError):
    """No room left on the device or in the quota."""


class StorageUnavailableError(StorageError):
    """The endpoint refused, hung, or cut the connection, and retries did not help."""


class CorruptObjectError(StorageError):
    """Content does not match the hash it is stored under, or is not what it must be."""


class NewerFormatError(StorageError):
    """The document was written by a newer EagleRay."""


class LeaseLostError(StorageError):
    """Another process holds the lease that allowed this write."""


class TrainingError(EagleRayError):
    """One trial cannot go on."""


class SearchError(EagleRayError):
    """No trial of a search gave a model."""


class TrackingError(EagleRayError):
    """MLflow's server does not answer, or refuses; the message names it."""


class ClusterError(EagleRayError):
    """A cluster failed, refused, or went away; the message names it."""


class ServingError(EagleRayError):
    """A version cannot be served."""


class NoRoomError(ServingError):
    """A version does not fit into memory beside those that are in use."""


class LostError(ServingError):
    """The process that was to answer has ended, or cannot be reached."""
