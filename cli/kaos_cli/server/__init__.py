"""The local server: PostgreSQL and Airflow on one machine, kept alive by supervisor (`kaos up`).

Nothing here imports Airflow: its processes are started as programs of their own, by `launch`.
"""
