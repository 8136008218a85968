"""The records of promotions in a store.

The refs::

    workspaces/<workspace>/decisions/<job_id>    digest of the Decision on the job's best model
    workspaces/<workspace>/promotions/<job_id>   digest of the ServeDocument that came of it
"""

from __future__ import annotations

from collections.abc import Iterator

from kaos.catalog import WorkspaceCatalog
from kaos.endpoint import ModelPin, ServeDocument
from kaos.errors import UnknownNameError
from kaos.gate import Condition
from kaos.job import JobDocument, new_job_id
from kaos.model import JobSummary, TrialSummary, numeric, sort_key
from kaos.models import Models
from kaos.promotion import Decision, Proposal
from kaos.serving.records import Endpoints
from kaos.serving.revision import lay_beside, revision_document


class Promotions:
    """The promotions of one workspace."""

    def __init__(self, workspace: WorkspaceCatalog) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self.endpoints = Endpoints(workspace)
        self._at = f"workspaces/{workspace.workspace.name}"

    def propose(
        self, document: JobDocument, endpoint: str, condition: str, metric: str, *, lower_is_better: bool
    ) -> Proposal:
        """Return a job's best model, compared with the one that serves.

        :raises UnknownNameError: the endpoint was killed, or the job has no model
        """
        best = self._best(document, metric, lower_is_better=lower_is_better)
        serving, revision = self._serving(endpoint)
        current = self._metrics(serving) if serving is not None else None
        return Proposal(
            job_id=document.job_id,
            schedule=document.schedule or document.definition,
            author=document.author,
            endpoint=endpoint,
            condition=condition,
            metric=metric,
            model=Models(self.workspace).pin(str(best.model_id)),
            trial=best.index,
            serving=serving,
            revision=revision,
            verdict=Condition(condition).of(best.metrics, current),
        )

    def again(self, proposal: Proposal) -> Proposal:
        """Return a proposal as it is now: another model may serve by the time that it is taken up."""
        serving, revision = self._serving(proposal.endpoint)
        current = self._metrics(serving) if serving is not None else None
        verdict = Condition(proposal.condition).of(self._metrics(proposal.model), current)
        return proposal.model_copy(update={"serving": serving, "revision": revision, "verdict": verdict})

    def add(self, decision: Decision) -> tuple[Decision, str]:
        """Record a decision, once for each job: the first stays, and is returned with its digest."""
        name = f"{self._at}/decisions/{decision.proposal.job_id}"
        with self.store.uses.hold():
            digest = self.store.objects.put(decision.encode())
            self.store.refs.create(name, digest.encode())
        ref = self.store.refs.get(name)
        digest = ref.value.decode() if ref is not None else digest
        return Decision.parse(self.store.objects.get(digest)), digest

    def decision(self, job_id: str) -> Decision | None:
        """Return the decision on a job's best model, or None."""
        ref = self.store.refs.get(f"{self._at}/decisions/{job_id}")
        return Decision.parse(self.store.objects.get(ref.value.decode())) if ref else None

    def decisions(self) -> Iterator[Decision]:
        """Iterate over all decisions, the oldest first."""
        for name in self.store.refs.names(f"{self._at}/decisions"):
            found = self.decision(name.rpartition("/")[2])
            if found is not None:
                yield found

    def revision(self, job_id: str) -> ServeDocument | None:
        """Return the revision that a job's best model became, or None."""
        ref = self.store.refs.get(f"{self._at}/promotions/{job_id}")
        return ServeDocument.parse(self.store.objects.get(ref.value.decode())) if ref else None

    def promote(self, proposal: Proposal, decision: str) -> tuple[ServeDocument, str]:
        """Record the endpoint's next revision, with the model that was proposed, once; return its document
        and the document's digest. Its code and settings are those of the revision that serves.

        :param decision: digest of the decision
        """
        name = f"{self._at}/promotions/{proposal.job_id}"
        ref = self.store.refs.get(name)
        if ref is None:
            new = self._next(proposal, decision)
            with self.store.uses.hold():
                self.store.refs.create(name, self.store.objects.put(new.encode()).encode())
            ref = self.store.refs.get(name)
        document = self.revision(proposal.job_id)
        if ref is None or document is None:
            raise UnknownNameError("promotion of job", proposal.job_id)
        if document.revision not in self.endpoints.revision_numbers(document.endpoint):
            self.endpoints.add_revision(document)
        return document, ref.value.decode()

    def _next(self, proposal: Proposal, decision: str) -> ServeDocument:
        before, _ = self._before(proposal.endpoint)
        source = lay_beside(self.workspace, before.code, proposal.model, proposal.author)
        job_id = new_job_id()
        return revision_document(
            self.endpoints.reserve(proposal.endpoint, job_id, proposal.author, update=True),
            job_id,
            source=source,
            code=before.code,
            model=proposal.model,
            resources=before.resources,
            workers=before.workers,
            runtime=before.runtime,
            limits=before.limits,
            author=proposal.author,
            decision=decision,
        )

    def _before(self, endpoint: str) -> tuple[ServeDocument, bool]:
        """Return the revision whose code is served, or else the newest; and whether it serves."""
        found = self.endpoints.alive(endpoint)
        numbers = self.endpoints.revision_numbers(endpoint)
        number = found.current or (numbers[-1] if numbers else 0)
        return self.endpoints.revision(endpoint, number)[0], found.current is not None

    def _serving(self, endpoint: str) -> tuple[ModelPin | None, int | None]:
        document, serves = self._before(endpoint)
        return (document.model, document.revision) if serves else (None, None)

    def _metrics(self, model: ModelPin) -> dict[str, float]:
        """Return the metrics of a model; an imported one has none."""
        try:
            return numeric(self.workspace.model_record(model.model_id).metrics)
        except UnknownNameError:
            return {}

    def _best(self, document: JobDocument, metric: str, *, lower_is_better: bool) -> TrialSummary:
        outcome = self.workspace.outcome(document.job_id)
        content = self.store.objects.get(outcome.summary) if outcome and outcome.summary else None
        trials = JobSummary.parse(content).trials if content is not None else []
        made = [trial for trial in trials if trial.model_id is not None]
        if not made:
            raise UnknownNameError("model of job", document.job_id)
        return min(made, key=lambda each: sort_key(each.metrics.get(metric), ascending=lower_is_better))
