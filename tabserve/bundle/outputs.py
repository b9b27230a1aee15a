"""The outputs that a model can be asked for by name, and how engine results become tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.manifest import ModelInfo
from tabserve.bundle.tensors import LABEL, labels, output_specs
from tabserve.inference.errors import InvalidRequest, quoted
from tabserve.inference.tensors import DATATYPES, RequestedOutput, Tensor, TensorSpec


class Outputs:
    """The outputs of one model; datatypes and shapes are the model's, whichever engine computes them.

    class_names: in the order of the model's classes; empty for a regression.
    """

    def __init__(self, model: ModelInfo, class_names: Sequence[str]) -> None:
        self._model, self._names = model, class_names
        self._specs = output_specs(model)
        self.default = tuple(model.default_outputs)

    def requested(self, outputs: Sequence[RequestedOutput]) -> tuple[str, ...]:
        """Names of the outputs to answer with; raises InvalidRequest for an unknown one."""
        if not outputs:
            return self.default
        for output in outputs:
            if output.name not in self._specs:
                raise InvalidRequest(f"outputs: expected one of {', '.join(self._specs)}; got {quoted(output.name)}")
        return tuple(dict.fromkeys(output.name for output in outputs))

    def tensors(self, names: Sequence[str], computed: Mapping[str, Array]) -> tuple[Tensor, ...]:
        """The named tensors, made from what an engine computed."""
        return tuple([self._tensor(self._specs[name], computed) for name in names])

    def empty(self, names: Sequence[str]) -> tuple[Tensor, ...]:
        """The named tensors for no rows at all."""
        specs = [self._specs[name] for name in names]
        return tuple(Tensor(s.name, s.datatype, np.empty((0, *s.shape[1:]), DATATYPES[s.datatype])) for s in specs)

    def _tensor(self, spec: TensorSpec, computed: Mapping[str, Array]) -> Tensor:
        if spec.name == LABEL:
            return Tensor(LABEL, "BYTES", labels(self._model, self._names, computed["predict"]))
        array, dtype = computed[spec.name], DATATYPES[spec.datatype]
        return Tensor(spec.name, spec.datatype, array if array.dtype == dtype else array.astype(dtype))


def numeric(model: ModelInfo) -> tuple[str, ...]:
    """The outputs that are numbers, in order: those that a decision record can hold."""
    return tuple(name for name, spec in output_specs(model).items() if spec.datatype != "BYTES")


def recorded(model: ModelInfo) -> tuple[str, ...]:
    """The numeric outputs by default, which a decision record has besides those that its decisions need."""
    held = set(numeric(model)) - {"contributions"}  # which take longer than all others
    return tuple(name for name in model.default_outputs if name in held)


@lru_cache
def of_engine(names: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs that an engine must compute for these."""
    return tuple(dict.fromkeys("predict" if name == LABEL else name for name in names))
