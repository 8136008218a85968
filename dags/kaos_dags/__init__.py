"""From job definitions to DAGs in Airflow: rendered, published to the store, served by a DAG bundle."""
