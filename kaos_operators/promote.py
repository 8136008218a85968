"""What follows a scheduled training: compare its model with the one that serves, ask, and deploy it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.external_task import DagStateTrigger
from airflow.sdk import SkipMixin
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from kaos.errors import KaosError, ServingFailedError
from kaos.lineage import small
from kaos.promotion import Answer, Proposal, decide
from kaos.serving.promotions import Promotions
from kaos_operators.base import KaosOperator, airflow_run
from kaos_operators.hook import open_job

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.endpoint import ServeDocument
    from kaos.job import JobDocument

_POLL = 2


class GateOperator(KaosOperator, SkipMixin):
    """Compare a job's best model with the one that an endpoint serves; skip what follows where it stays out.

    The decision is recorded where the model stays out; else by the tasks that follow.

    :param endpoint: name of the endpoint
    :param condition: what the model must meet, such as ``accuracy >= 0.9 and > current``
    :param metric: the one that chooses the best of the job's models
    :param lower_is_better: by the lowest value of it
    """

    inherits_from_skipmixin = True

    def __init__(
        self, *, endpoint: str, condition: str, metric: str, lower_is_better: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.condition = condition
        self.metric = metric
        self.lower_is_better = lower_is_better

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Return a `Proposal`."""
        promotions = Promotions(workspace)
        proposal = promotions.propose(
            document, self.endpoint, self.condition, self.metric, lower_is_better=self.lower_is_better
        )
        self.log.info("%s, for %s: %s", proposal.model.model_id, self.endpoint, proposal.verdict.reason)
        if not proposal.accepted:
            decision, _ = promotions.add(decide(proposal, None, airflow_run(context), datetime.now(UTC)))
            self.log.info("It stays out: %s", decision.reason)
            self.skip(ti=context["ti"], tasks=context["task"].get_direct_relatives(upstream=False))
        return small(proposal)


class ApproveOperator(ApprovalOperator):
    """Ask a person whether a model that meets its condition shall be deployed.

    :param job: digest of the job document (templated)
    :param proposal: what `GateOperator` returned (templated)
    :param answer_within: after which no answer is a no
    """

    template_fields: Sequence[str] = ("job", "proposal")

    def __init__(self, *, job: str, proposal: Any, answer_within: timedelta, **kwargs: Any) -> None:
        super().__init__(
            subject="Deploy this model?", defaults=self.REJECT, response_timeout=answer_within, **kwargs
        )
        self.job = job
        self.proposal = proposal

    def execute(self, context: Context) -> Any:
        """Write the question, and wait."""
        proposal = Proposal.model_validate(self.proposal)
        self.subject = f"Deploy {proposal.model.model_id} to {proposal.endpoint}?"
        rows = "\n".join(f"- {each}" for each in proposal.verdict.compared)
        serving = (
            f"`{proposal.serving.model_id}`, revision {proposal.revision}" if proposal.serving else "no model"
        )
        self.body = (
            f"Schedule **{proposal.schedule}** trained `{proposal.model.model_id}` in job "
            f"`{proposal.job_id}`. {proposal.endpoint} serves {serving}.\n\n`{proposal.condition}`\n\n{rows}"
        )
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return an `Answer`; after a no the decision is recorded, and what follows is skipped."""
        person = event.get("responded_by_user") or {}
        answer = Answer(
            approved=event.get("chosen_options") == [self.APPROVE],
            by=str(person.get("name", "")),
            at=event.get("responded_at") or datetime.now(UTC),
        )
        if not answer.approved:
            proposal = Proposal.model_validate(self.proposal)
            decision = decide(proposal, answer, airflow_run(context), datetime.now(UTC))
            Promotions(open_job(self.job)[1]).add(decision)
        super().execute_complete(context, event)
        return small(answer)


class PromoteOperator(TriggerDagRunOperator):
    """Deploy a model as the next revision of an endpoint, with the code that serves; wait until it is routed.

    It records the decision, then the revision, and triggers the DAG that deploys endpoints: the revision is
    built, started, probed and routed there like any other. Run again, it goes on with the same revision.

    :param job: digest of the job document (templated)
    :param proposal: what `GateOperator` returned (templated)
    :param answer: what `ApproveOperator` returned, None if nobody is asked (templated)
    """

    template_fields: Sequence[str] = ("job", "proposal", "answer")
    ui_color = "#eef0fb"

    def __init__(self, *, job: str, proposal: Any, answer: Any = None, **kwargs: Any) -> None:
        super().__init__(
            trigger_dag_id="",
            logical_date=None,
            wait_for_completion=True,
            deferrable=True,
            poke_interval=_POLL,
            openlineage_inject_parent_info=False,
            **kwargs,
        )
        self.job = job
        self.proposal = proposal
        self.answer = answer

    def execute(self, context: Context) -> Any:
        """Record decision and revision, and start the deploy; one that is there already is waited for."""
        try:
            document, digest = self._revision(context)
        except KaosError as error:
            raise AirflowFailException(str(error)) from error
        key = document.dag_id, document.run_id
        self.log.info(
            "%s becomes revision %d of %s", self._model(document), document.revision, document.endpoint
        )
        if Promotions(open_job(self.job)[1]).endpoints.outcome(document.endpoint, document.revision):
            return self.execute_complete(context, None)  # an earlier try of this task was lost after that
        if context["ti"].get_dr_count(dag_id=key[0], run_ids=[key[1]]):
            states = [*self.allowed_states, *self.failed_states]
            trigger = DagStateTrigger(dag_id=key[0], run_ids=[key[1]], states=states, poll_interval=_POLL)
            self.defer(trigger=trigger, method_name="execute_complete")
        self.trigger_dag_id, self.trigger_run_id = key
        self.conf = {
            "serve": digest,
            "workspace": document.workspace,
            "endpoint": document.endpoint,
            "author": document.author,
        }
        return super().execute(context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the revision, once it has its traffic."""
        promotions = Promotions(open_job(self.job)[1])
        document = promotions.revision(Proposal.model_validate(self.proposal).job_id)
        if document is None:
            raise AirflowFailException("The revision is gone: the workspace was killed meanwhile.")
        outcome = promotions.endpoints.outcome(document.endpoint, document.revision)
        if outcome is None or not outcome.succeeded:
            reason = outcome.reason if outcome is not None else "Airflow failed its deploy."
            failed = ServingFailedError(f"Revision {document.revision} of {document.endpoint}: {reason}")
            raise AirflowFailException(str(failed))
        return {
            "endpoint": document.endpoint,
            "revision": document.revision,
            "model": self._model(document),
            "decision": document.decision,
        }

    def _revision(self, context: Context) -> tuple[ServeDocument, str]:
        promotions = Promotions(open_job(self.job)[1])
        proposal = Proposal.model_validate(self.proposal)
        answer = Answer.model_validate(self.answer) if self.answer is not None else None
        now = promotions.again(proposal)
        decision, digest = promotions.add(decide(now, answer, airflow_run(context), datetime.now(UTC)))
        if decision.outcome != "promoted":
            raise AirflowSkipException(f"The model was {decision.outcome}: {decision.reason}")
        return promotions.promote(proposal, digest)

    def _model(self, document: ServeDocument) -> str:
        return document.model.model_id if document.model is not None else ""
