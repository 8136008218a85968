"""DAGs that go: out of the database, and once more if the DAG processor was just reading their files."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from threading import Thread

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from kaos.errors import KaosError
from kaos.job import Definition
from kaos.store import Store
from kaos_dags.publish import head
from kaos_dags.render import file_name
from kaos_plugin import airflow_internals

log = logging.getLogger(__name__)

_LATER = (0.5, 1.0, 3.0, 10.0, 45.0)
"""Seconds between the looks for DAGs that came back; reading a file may take as long as all of them."""


def remove_dags(store: Store, definitions: Sequence[Definition], db: Session) -> None:
    """Remove DAGs, whose files are not published any more, with their history.

    What the DAG processor had begun to read before, it writes down seconds later: a DAG without a file, which
    might even run. That is removed by a thread; if the server ends before, Airflow marks the DAG as stale.
    """
    for definition in definitions:
        airflow_internals.remove_dag(definition.dag_id, db)
    if definitions:
        Thread(target=_remove_again, args=(store, list(definitions)), name="kaos-remove", daemon=True).start()


def _remove_again(store: Store, definitions: list[Definition]) -> None:
    for pause in _LATER:
        time.sleep(pause)
        try:
            with airflow_internals.session() as db:
                for definition in definitions:
                    # A workspace of the same name may have been made since.
                    if (
                        airflow_internals.is_known(definition.dag_id, db)
                        and head(store).file(file_name(definition.dag_id)) is None
                    ):
                        airflow_internals.remove_dag(definition.dag_id, db)
        except (KaosError, SQLAlchemyError, OSError) as error:
            log.warning("DAGs that were removed may be back: %s", error)
