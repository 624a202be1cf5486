"""What sections of settings are made of. Torch-free."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Number = Any  # a float or a 0-dim tensor: this module knows no torch


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

    def at(self, progress: Number) -> Number:
        """The value at `progress` in [0, 1], a number or a 0-dim tensor."""
        share = within((progress - self.begin) / max(self.finish - self.begin, 1e-30))
        if isinstance(share, float) and share in (0.0, 1.0):
            return self.end if share else self.start  # to the last bit
        return self.start + (self.end - self.start) * share


def _below_a_right_angle(ramp: Ramp) -> Ramp:
    if not all(0 < angle <= 90 for angle in (ramp.start, ramp.end)):
        raise ValueError("an angle must lie in (0, 90] degrees")
    return ramp


Angle = Annotated[Ramp, AfterValidator(_below_a_right_angle)]  # degrees


def within(share: Number) -> Number:
    """`share` held in [0, 1]. Tensors bring their own `clamp`, so that a CUDA graph can replay it."""
    return min(max(share, 0.0), 1.0) if isinstance(share, int | float) else share.clamp(0.0, 1.0)


def constant(value: float) -> Ramp:
    """A ramp that stays at `value`."""
    return Ramp(start=value, end=value)
