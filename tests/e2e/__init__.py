"""End-to-end tests: a real server, real users, a real Airflow."""
