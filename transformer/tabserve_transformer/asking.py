"""Ask the predictor for what an answer needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabserve.inference.errors import InferenceError
from tabserve.inference.model import PREDICTOR_RELEASE, Context
from tabserve.inference.tensors import InferRequest, Parameters, RequestedOutput, Tensor
from tabserve.schema.decisions import Decisions
from tabserve_transformer.instruments import Instruments
from tabserve_transformer.predictor_client.client import RemotePredictor
from tabserve_transformer.record_answers import requests

_CONTRIBUTIONS = requests(("contributions",))
_NOTHING: Parameters = {}


class Predicted(NamedTuple):
    """The predictor's tensors by name, and the parameters of its answer."""

    tensors: dict[str, Tensor]
    parameters: Parameters


class Asking:
    """Asks for outputs and, where reasons need them, for contributions. release: the predictor's."""

    def __init__(
        self, predictor: RemotePredictor, decisions: Decisions, instruments: Instruments, release: str
    ) -> None:
        self._predictor, self._decisions = predictor, decisions
        self._instruments, self._release = instruments, release

    async def predict(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[RequestedOutput, ...],
        names: Sequence[str],
        context: Context,
        parameters: Parameters = _NOTHING,
    ) -> Predicted:
        """The answers to these outputs, and what reasons need if they are among the names.

        parameters: of the request to the predictor. Raises what its client raises.
        """
        predicted = await self._ask(inputs, outputs, context, parameters)
        if "reasons" in names:
            predicted.tensors.update(await self.explain(inputs, predicted.tensors, context))
        return predicted

    async def explain(
        self, inputs: tuple[Tensor, ...], tensors: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """The contributions that reasons need in addition to these tensors.

        If only some bands have reasons, they are asked for in a second call, for only the rows in these bands.
        """
        explained = self._decisions.lacking({name: tensor.array for name, tensor in tensors.items()})
        if not len(explained):
            return {}
        some = tuple(Tensor(each.name, each.datatype, each.array[explained]) for each in inputs)
        return (await self._ask(some, _CONTRIBUTIONS, context, _NOTHING)).tensors

    async def _ask(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[RequestedOutput, ...],
        context: Context,
        parameters: Parameters,
    ) -> Predicted:
        request = InferRequest(inputs, outputs=outputs, parameters=parameters)
        started = time.perf_counter()
        try:
            response = await self._predictor.infer(request, context)
        except InferenceError as error:
            self._instruments.waited(time.perf_counter() - started, error.http_status)
            raise
        self._instruments.waited(time.perf_counter() - started, 200)
        context.response_headers[PREDICTOR_RELEASE] = self._release
        return Predicted({tensor.name: tensor for tensor in response.outputs}, response.parameters)
