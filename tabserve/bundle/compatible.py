"""Answer a model's requests as KServe's or MLServer's own servers do, so that their clients need no change.

Source: `model.py` of sklearnserver, xgbserver and lgbserver (kserve 0.21); mlserver_sklearn, mlserver_xgboost and
mlserver_lightgbm (1.7.1); `get_predict_input` and `get_predict_response` of kserve.utils.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import msgspec
import orjson

from tabserve.arrays import Array
from tabserve.bundle.errors import BundleError
from tabserve.bundle.instances import decode_arrays
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import ModelInfo
from tabserve.bundle.tensors import MATRIX, described, output_specs
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.contract import Contract
from tabserve.inference.large import in_thread
from tabserve.inference.model import NATIVE, AroundModel, Context, Model
from tabserve.inference.settings import Server
from tabserve.inference.tensors import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    Tensor,
    TensorSpec,
    text,
)


class Output(NamedTuple):
    """One of the other server's outputs. name: there. of: ours that it is made from.

    positive: whether it is only the last column, as a Booster's answer is for two classes. mlserver: whether it is
    MLServer's, which has at least two dimensions, and a content type.
    """

    name: str
    of: str
    positive: bool = False
    mlserver: bool = False

    def tensor(self, tensor: Tensor) -> Tensor:
        """The output, made from ours."""
        array: Array = tensor.array[:, -1] if self.positive else tensor.array
        if not self.mlserver:
            return Tensor(self.name, tensor.datatype, array)
        return Tensor(self.name, tensor.datatype, array[:, None] if array.ndim == 1 else array, content_type="np")

    def spec(self, spec: TensorSpec) -> TensorSpec:
        """The output as metadata declares it, given ours."""
        shape = (-1,) if self.positive else spec.shape
        return TensorSpec(self.name, spec.datatype, (-1, 1) if self.mlserver and len(shape) == 1 else shape)


def outputs(server: Server, model: ModelInfo) -> tuple[Output, ...]:
    """What the other server answers for a model, by the model's library; the first is the default. Raises BundleError.

    Its servers of XGBoost and LightGBM know no classes: a Booster's answer to them is a probability.
    """
    booster = Output("", "predict")
    if model.classes and "predict_proba" in model.outputs:
        booster = Output("", "predict_proba", positive=len(model.classes) == 2)
    elif model.classes and model.native != "sklearn" and (server, model.native) != ("mlserver", "xgboost"):
        problem = f"{server} answers what the model's own objective gives, which is no probability"
        raise BundleError("compatible", problem, "Leave `compatible` out, and ask for `predict` or `margin`.")
    if server == "mlserver":
        if model.native == "lightgbm":
            return (booster._replace(name="predict", mlserver=True),)
        probabilities = [name for name in model.outputs if name == "predict_proba"]
        return tuple(Output(name, name, mlserver=True) for name in ("predict", *probabilities))
    if model.native != "sklearn":
        return (booster._replace(name="output-0"),)
    probabilities = [name for name in model.outputs if (server, name) == ("kserve-proba", "predict_proba")]
    return (Output("output-0", probabilities[0] if probabilities else "predict"),)


def compatible(core: Model, bundle: Bundle, server: Server | Literal[""]) -> Model:
    """A model that answers as another server; the same one without a server. Raises BundleError."""
    if not server:
        return core
    if bundle.manifest.preprocessor is not None:
        problem = f"{server} would take what the preprocessor takes, and this model takes what the preprocessor gives"
        raise BundleError("compatible", problem, "Leave `compatible` out, and have clients send records.")
    return Compatible(core, bundle.manifest.model, outputs(server, bundle.manifest.model))


class Compatible(AroundModel):
    """A model for clients of another server; implements tabserve.inference.model.Model.

    What that server does not know is answered as without it: outputs by our names, and records. So is whatever a
    transformer asks, which says so with the parameter NATIVE.
    """

    def __init__(self, core: Model, model: ModelInfo, theirs: Sequence[Output]) -> None:
        super().__init__(core)
        self._model = model
        self._theirs = {output.name: output for output in theirs}
        self._default = theirs[0]
        inputs = [spec.name for spec in core.metadata.inputs]
        self._known = {MATRIX, *inputs, *(spec.name for spec in model.features)}
        self.metadata = self._described(core.metadata)

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer a V2 request. Raises what the model raises."""
        if NATIVE in request.parameters:
            return await self._core.infer(request, context)
        names = tuple(output.name for output in request.outputs) or (self._default.name,)
        asked = tuple(RequestedOutput(self._theirs[name].of if name in self._theirs else name) for name in names)
        inputs = self._renamed(request.inputs)
        response = await self._core.infer(msgspec.structs.replace(request, inputs=inputs, outputs=asked), context)
        ours = {tensor.name: tensor for tensor in response.outputs}
        given = tuple(
            self._theirs[name].tensor(ours[self._theirs[name].of]) if name in self._theirs else ours[name]
            for name in dict.fromkeys(names)
        )
        needed = {output.name for output in asked}
        more = tuple(tensor for tensor in response.outputs if tensor.name not in needed)
        return InferResponse((*given, *more), response.parameters, request.id or str(uuid.uuid4()))

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer a V1 body of `instances` or `inputs`: arrays as KServe's server, records as the model itself.

        Raises what the model raises.
        """
        read = partial(decode_arrays, body, self.bounds)
        tensors, records = await in_thread(read) if len(body) > LARGE_BYTES else read()
        if not tensors:
            return await self._core.predict(records, context)
        (answer,) = (await self.infer(InferRequest(tensors), context)).outputs
        values = answer.array.tolist()
        return orjson.dumps({"predictions": [text(v) for v in values] if answer.datatype == "BYTES" else values})

    def _renamed(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A single input of any name as the model's matrix."""
        if len(inputs) > 1 or inputs[0].name in self._known:
            return inputs
        return (msgspec.structs.replace(inputs[0], name=MATRIX),)

    def _described(self, metadata: ModelMetadata) -> ModelMetadata:
        ours = output_specs(self._model) | {spec.name: spec for spec in metadata.outputs}
        default, *others = (output.spec(ours[output.of]) for output in self._theirs.values())
        optional = [*others, *(spec for name, spec in ours.items() if name not in self._theirs)]
        properties = metadata.properties | {"optional_outputs": described(optional)}
        return msgspec.structs.replace(metadata, outputs=(default,), properties=properties, contract=Contract())
