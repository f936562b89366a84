"""The sections of the experiment file, each a closed and strict model.

A field's law is with the field, and a law between two fields with the later one, at whose key it is
reported. Laws between sections are in `eagleray.spec.validation`.
"""

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import pydantic
from pydantic import Discriminator, Field, Tag, ValidationInfo
from pydantic_core import PydanticCustomError

from eagleray.learn import columns, features, models
from eagleray.learn.models.options import Many, Section
from eagleray.spec import terms
from eagleray.spec.compute import Compute
from eagleray.spec.decide import Decide
from eagleray.spec.endpoint import Serve
from eagleray.spec.recommend import Recommend
from eagleray.spec.terms import Filled, Part, Seed
from eagleray.spec.train import Train
from eagleray.spec.tune import Tune
from eagleray.storage import EMBEDDED


class Split(Section):
    """How rows are split into training, validation and test."""

    validation: Part = Field(0.2, description="Part of the rows that trials are compared on.")
    test: Part = Field(
        0.2,
        description="Part of the rows that the winner is evaluated on, once.",
        validate_default=True,
    )
    group: Filled | None = Field(
        None, description="Column whose equal values stay in one part, such as a user."
    )
    time: Filled | None = Field(
        None, description="Column to sort by: training is the oldest part, test the newest."
    )
    stratify: bool = Field(
        default_factory=lambda split: not (split.get("group") or split.get("time")),
        description="Keep the shares of the classes, or of a number's tenths, in each part. "
        "Off under `group`, `time` and `data.recommend`.",
    )

    @pydantic.field_validator("test")
    @classmethod
    def _leaves_training(cls, test: float, info: ValidationInfo) -> float:
        total = info.data.get("validation", 0) + test
        if total >= 1:
            got = {"got": f"{total:g}"}
            raise PydanticCustomError("law", "validation and test must be below 1 together", got)
        return test

    @pydantic.field_validator("time", "stratify")
    @classmethod
    def _alone(cls, value: str | bool | None, info: ValidationInfo) -> str | bool | None:
        others = [key for key in ("group", "time") if info.data.get(key)]
        if value and others:
            raise PydanticCustomError("law", f"cannot stand beside {' and '.join(others)}")
        return value


class Data(Section):
    """Where rows come from, and what is predicted."""

    source: Filled = Field(
        description="Path of a file, a folder or a pattern with `*` (beside this file, or in the "
        "working directory), the same in `s3://…`, `dataset:NAME` of scikit-learn, or "
        "`module:function` that gives a pandas frame."
    )
    target: Filled = Field(description="Column to predict.")
    positive: Filled | None = Field(
        None, description="The positive one of two classes. Default: the later one."
    )
    quantiles: terms.Quantiles = Field(
        (),
        description="Quantiles of a number to predict, ascending, with the median, such as "
        "`[0.05, 0.5, 0.95]`. Default: its mean alone.",
    )
    split: Split = Field(Split(), description="How rows are split.")
    seed: Seed = Field(0, description="Seed of the split.")
    drop: Many[Filled] = Field((), description="Columns to leave out.")
    protected: Many[Filled] = Field(
        (),
        description="Columns, such as sex or age, by whose groups the winner's predictions are "
        "compared (docs/report.md). They are inputs unless `drop` has them too.",
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep",
        description="`drop` leaves out rows that repeat an earlier one, target included, and "
        "hardly by chance.",
    )
    missing: Many[str] = Field(
        (), description="Texts that mean a missing value, in addition to the usual ones."
    )
    encoding: terms.Encoding | None = Field(
        None,
        description="Encoding of a text file, such as `latin-1`. Default: that of its byte order "
        "mark, else UTF-8.",
    )
    delimiter: terms.Character | None = Field(
        None,
        description="Delimiter of a text file. Default: comma, semicolon, tab or bar, whichever "
        "gives the header most columns.",
    )
    memory: terms.Memory | None = Field(
        None,
        description="Memory for the rows, such as `4GB`; larger Parquet and CSV are streamed. "
        "Default: an eighth of the memory of the machine that reads them.",
    )

    recommend: Recommend | None = Field(
        None,
        description="Rows are choices of users: recommends values of the target to them, beside "
        "`model.type: recommender`.",
    )

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        if self.memory is None:
            return None
        return int(self.memory[:-2]) * {"MB": 10**6, "GB": 10**9}[self.memory[-2:]]

    @pydantic.field_validator("drop")
    @classmethod
    def _keeps_target(cls, drop: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in drop:
            raise PydanticCustomError("law", "must leave the target in")
        return drop

    @pydantic.field_validator("protected")
    @classmethod
    def _are_no_target(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in value:
            raise PydanticCustomError("law", "must be other columns than the target")
        return value

    @pydantic.model_validator(mode="before")
    @classmethod
    def _by_user(cls, value: object) -> object:
        """Items are no classes whose shares a split could keep: it is by user."""
        given = value if isinstance(value, dict) else {}
        split = given.get("split", {})
        if given.get("recommend") is None or not isinstance(split, dict):
            return value
        return {**given, "split": {"stratify": False, **split}}

    @pydantic.field_validator("recommend")
    @classmethod
    def _fits_rows(cls, value: Recommend | None, info: ValidationInfo) -> Recommend | None:
        """Rows are split by user, and both columns are needed."""
        if value is None:
            return None
        split, data = info.data.get("split", Split()), info.data
        if data.get("protected"):
            law = "compares lists, not groups, and cannot stand beside data.protected"
            raise PydanticCustomError("law", law, {"got": f"user: {value.user}"})
        if split.group:
            law = "splits the rows of each user, and cannot stand beside split.group"
            raise PydanticCustomError("law", law, {"got": f"user: {value.user}"})
        named = [("user", value.user), ("rating", value.rating)]
        taken = [data.get("target"), *data.get("drop", ())]
        for key, name in [*named, *(("items", name) for name in value.items)]:
            taken += [value.user, value.rating] if key == "items" else []
            if name is not None and name in taken:
                law = "needs a column for each key, neither the target nor in drop"
                raise PydanticCustomError("law", law, {"got": f"{key}: {name}"})
        return value


class _Feature(Section):
    """How one column is turned into numbers."""

    tag: ClassVar[str | None] = "COLUMN"

    type: Annotated[str, terms.OneOf(columns.REGISTRY)] = Field(
        "auto", description=f"Kind of the column; `{columns.IDENTIFIER.name}` leaves it out."
    )

    @property
    def kind(self) -> columns.ColumnKind | None:
        """The kind of the column; None where its values decide."""
        return None if self.type == "auto" else columns.REGISTRY[self.type]

    @classmethod
    def foreign(cls, kind: str) -> set[str]:
        """Options that a kind does not have."""
        return {name for name in cls.model_fields if kind not in (_owners(name) or [kind])}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_maker(cls, value: object) -> object:
        """A column that is made needs no type beside what makes it."""
        given = value if isinstance(value, dict) else {}
        own = features.made.OWN
        makers = [one for one in (*features.made.MAKERS, own) if given.get(one) is not None]
        if len(makers) > 1:
            got = {"got": " and ".join(makers)}
            raise PydanticCustomError("law", "a column must be made in one way", got)
        if (given.get("of") is None) != (own not in makers):
            got = {"got": "of" if given.get("of") is not None else own}
            raise PydanticCustomError("law", f"needs {own} and of together", got)
        if not makers or "type" in given:
            return value
        return {"type": _owners(makers[0])[0], **given}

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _belongs(cls, value: object, info: ValidationInfo) -> object:
        """Called for options that are set, not for defaults."""
        owners, kind = _owners(info.field_name), info.data.get("type")
        if owners and kind is not None and kind not in owners:
            got = {"got": f"type: {kind}"}
            raise PydanticCustomError("law", f"needs type: {' or '.join(owners)} beside it", got)
        return value


def _owners(option: str | None) -> list[str]:
    kinds = columns.REGISTRY
    return [name for name in kinds if option in kinds[name].options.model_fields]


UNTYPED_MODEL = "mlp"
"""The type of a section `model` that has keys but no `type`."""


def _model_tag(value: object) -> str:
    given = value if isinstance(value, dict) else vars(value) if isinstance(value, Section) else {}
    kind = str(given.get("type", UNTYPED_MODEL))
    return "module:function" if ":" in kind else kind


def _default_model(given: dict[str, Any]) -> models.Options:
    """The default of the section, before the types of the columns are known."""
    data = given.get("data")
    kind = models.default_type(recommends=data is not None and data.recommend is not None)
    return models.parse({"type": kind})


if TYPE_CHECKING:
    ModelOptions = models.Options

    class FeatureOptions(_Feature):
        """Has the options of all column kinds."""

        of: tuple[str, ...] | None

        def __init__(self, **options: Any) -> None: ...

else:
    _parts = dict.fromkeys(columns.REGISTRY[name].options for name in columns.REGISTRY)
    FeatureOptions = pydantic.create_model(
        "FeatureOptions",
        __base__=(*reversed(_parts), _Feature),  # fields of the last come first
        __doc__=_Feature.__doc__,
        __module__=__name__,
    )
    _tagged = [Annotated[one, Tag(str(one.tag))] for one in models.sections()]
    ModelOptions = Annotated[functools.reduce(operator.or_, _tagged), Discriminator(_model_tag)]


def with_defaults(model: models.Options | None, train: Train) -> Train:
    """The section `train`, with this model's defaults for keys that are not set."""
    own = {**dict(Train()), **(type(model).train if model is not None else {})}
    given = {key: getattr(train, key) for key in train.model_fields_set}
    return Train.model_construct(train.model_fields_set, **{**own, **given})


def _of_model(train: Train, info: ValidationInfo) -> Train:
    return with_defaults(info.data.get("model"), train)


TrainOfModel = Annotated[Train, pydantic.AfterValidator(_of_model)]


class Configuration(Section):
    """The values of one trial."""

    features: dict[str, FeatureOptions] = Field({})
    model: ModelOptions
    train: TrainOfModel = Field(Train(), validate_default=True)


class Audit(Section):
    """What the audit of the data does to a run."""

    fail_on: Literal["error", "warn", "never"] = Field(
        "never",
        description="Findings that end a run before its first trial: errors, or warnings too.",
    )


class File(Section):
    """The whole file, of which these keys stand outside of any section."""

    name: Annotated[str, Field(pattern=terms.NAME)] = Field(
        description="Name of the model; lowercase letters, digits and hyphens, at most 40."
    )
    data: Data = Field(description="Where rows come from, and what is predicted.")
    audit: Audit = Field(Audit(), description="What the audit of the data does to a run.")
    features: dict[str, FeatureOptions] = Field(
        {}, description="Columns that are not treated as their inferred type is by default."
    )
    model: ModelOptions = Field(
        default_factory=_default_model,
        description="What is trained. Without it: `tabm` for tables, `image` for pictures, `text` "
        "for texts alone, `recommender` beside `data.recommend`.",
    )
    train: TrainOfModel = Field(Train(), validate_default=True, description="How it is trained.")
    tune: Tune = Field(Tune(), description="How configurations are searched.")
    decide: Decide = Field(Decide(), description="How the winner predicts.")
    compute: Compute = Field(Compute(), description="What one trial gets.")
    storage: Annotated[str, Field(pattern=terms.STORAGE)] = Field(
        EMBEDDED,
        description="`s3://bucket`, `s3://bucket/prefix` or `file:///folder`; endpoint and "
        "credentials come from the usual AWS variables and files.",
    )
    serve: Serve = Field(Serve(), description="How the endpoint runs.")


def walk(
    section: type[pydantic.BaseModel] = File, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[pydantic.BaseModel]]]:
    """Every section with its place; a tag stands in the place of a column or a model type."""
    yield at, section
    for name, field in section.model_fields.items():
        for inner in _sections_in(field.annotation):
            tag = getattr(inner, "tag", None)
            yield from walk(inner, (*at, name, *([tag] if tag else [])))


def _sections_in(annotation: object) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
