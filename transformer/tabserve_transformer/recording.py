"""What the transformer tells the decision log about each answered request of records."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress

from tabserve.arrays import Array
from tabserve.bundle import Bundle
from tabserve.bundle.outputs import numeric, recorded
from tabserve.bundle.tensors import class_names
from tabserve.decision_log.entry import ONLINE, SHADOW, Entry, Log
from tabserve.decision_log.hiding import Hiding
from tabserve.inference.arms import COPIED
from tabserve.inference.errors import PredictionFailed
from tabserve.inference.model import ENGINE, RECORDED, VERSIONS, Context
from tabserve.inference.request_ids import REQUEST_ID
from tabserve.inference.tensors import Parameters, Tensor
from tabserve.schema.decisions import CODES, Decisions
from tabserve_transformer import record_ids
from tabserve_transformer.asking import Predicted
from tabserve_transformer.inputs import Taken
from tabserve_transformer.settings import Settings


class Recording:
    """Makes an entry of every answered request of records, and puts it into the log.

    parameters: of a request to the predictor, so that its answer can be recorded.
    """

    def __init__(self, bundle: Bundle, decisions: Decisions, log: Log, settings: Settings) -> None:
        """Raises BundleError if the schema hashes fields, and there is no key."""
        model, schema, classes = bundle.manifest.model, bundle.schema, class_names(bundle)
        self._log, self._decisions = log, decisions
        self._hiding = Hiding(schema, settings.decision_log_hash_key_file, "decision_log_hash_key_file")
        self._release, self._digest, self._id = settings.release, bundle.digest, schema.id
        self._targets = bool(schema.outputs.targets)
        self._names = (*decisions.names, *(["label"] if classes else []))
        self._with_contributions = frozenset(numeric(model))
        self._outputs = self._with_contributions - {"contributions"}
        self._count = len(self._names) + ("reasons" in self._names)
        added = dict.fromkeys([*decisions.needs(self._names), *recorded(model)])
        self.parameters: Parameters = {RECORDED: ",".join(added)}

    def explains(self, names: Collection[str], predicted: Predicted) -> bool:
        """Whether there may be reasons that the client did not ask for."""
        needed = self._decisions.needs(("decision",))
        return "reasons" in self._names and "reasons" not in names and predicted.tensors.keys() >= set(needed)

    def put(
        self,
        taken: Taken,
        predicted: Predicted,
        made: Mapping[str, Tensor],
        names: Collection[str],
        context: Context,
    ) -> None:
        """Put a request that holds records into the log, if any of them fits.

        made: decisions, with codes if there are reasons, and ids. names: what the client asked for.
        """
        rows = len(taken.tensors[0].array)
        if taken.columns is None or not rows:
            return
        kept = self._with_contributions if "contributions" in names else self._outputs
        self._log.put(
            Entry(
                request_id=context.trace.get(REQUEST_ID, ""),
                time=time.time(),
                rows=rows,
                engine=str(predicted.parameters.get(ENGINE, "")),
                versions=str(predicted.parameters.get(VERSIONS, "")),
                release=self._release,
                digest=self._digest,
                columns=self._hiding(taken.columns),
                outputs={name: tensor.array for name, tensor in predicted.tensors.items() if name in kept},
                answers=self._answers(predicted.tensors, made),
                ids=self._ids(taken, made, context),
                places=taken.places,
                source=SHADOW if context.arm == COPIED else ONLINE,
            )
        )

    def _ids(self, taken: Taken, made: Mapping[str, Tensor], context: Context) -> Array | None:
        """The records' ids; None if they are made from the request's."""
        if self._id is None and REQUEST_ID in context.trace:
            return None
        given = made.get(self._id) if self._id else None
        return (given or record_ids.tensor("id", taken, context)).array

    def _answers(self, predicted: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> dict[str, Array]:
        """All that can be decided, also what the client did not ask for."""
        answers = {name: made[name].array for name in self._names if name in made}
        if CODES in made:
            answers[CODES] = made[CODES].array
        if len(answers) < self._count:
            answers |= self._more({name: tensor.array for name, tensor in predicted.items()}, answers)
        if self._targets:
            answers["predict"] = predicted["predict"].array
        return answers

    def _more(self, outputs: Mapping[str, Array], known: Collection[str]) -> dict[str, Array]:
        """What is not known; nothing if the score is not a number, which must not fail a request."""
        with suppress(PredictionFailed):
            more = [name for name in self._names if name not in known and self._can_decide(name, outputs)]
            return self._decisions.decide(outputs, [*more, CODES] if "reasons" in more else more)
        return {}

    def _can_decide(self, name: str, outputs: Mapping[str, Array]) -> bool:
        needed = outputs.keys() >= set(self._decisions.needs((name,)))
        return needed and (name != "reasons" or not len(self._decisions.lacking(outputs)))
