"""What sections of settings are made of. Torch-free."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Ramp(Section):
    """A value that moves linearly from `start` to `end` while training progress goes from `begin` to `finish`."""

    start: float
    end: float
    begin: Share = 0.0
    finish: Share = 1.0

    @model_validator(mode="before")
    @classmethod
    def _number_is_constant(cls, value: object) -> object:
        return {"start": value, "end": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _ordered(self) -> "Ramp":
        if self.begin > self.finish:
            raise ValueError("begin must not be after finish")
        return self

    def at(self, progress: float) -> float:
        """The value at `progress` in [0, 1]."""
        if progress <= self.begin:
            return self.start
        if progress >= self.finish:
            return self.end
        return self.start + (self.end - self.start) * (progress - self.begin) / (self.finish - self.begin)


def constant(value: float) -> Ramp:
    """A ramp that stays at `value`."""
    return Ramp(start=value, end=value)
