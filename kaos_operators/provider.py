"""What Airflow is told about this provider."""

from __future__ import annotations

from typing import Any

from kaos import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider's name, versions, links and the options of its `[kaos]` section."""
    return {
        "package-name": "airflow-provider-kaos",
        "name": "kaos",
        "description": "Reproducible machine learning on Apache Airflow",
        "versions": [__version__],
        "extra-links": ["kaos_operators.links.JobLink"],
        "config": {
            "kaos": {
                "description": "Settings of kaos",
                "options": {
                    "store": {
                        "description": "Where bundles, models and records live: file:///absolute/directory",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "file:///var/lib/kaos/store",
                        "default": None,
                    },
                    "work_dir": {
                        "description": "Directory of a worker for environments, checkouts and runs",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/kaos/work",
                        "default": None,
                    },
                    "max_trials": {
                        "description": "The most trials that one job may have",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "10000",
                    },
                    "manifest_allowed_networks": {
                        "description": "Networks (CIDRs) that are not public and manifests may reach",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "10.1.0.0/16, fd00:1::/32",
                        "default": "",
                    },
                    "manifest_s3_connection": {
                        "description": "The Airflow connection with the credentials for s3:// in manifests",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": "aws_default",
                    },
                    "manifest_connections_per_host": {
                        "description": "The most connections at a time to one host",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "16",
                    },
                    "manifest_proxy": {
                        "description": "Proxy for manifests; it decides which addresses may be reached",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "http://proxy.example.org:3128",
                        "default": "",
                    },
                    "manifest_ca_file": {
                        "description": "Certificates to trust for https in manifests instead of the system's",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/ssl/our-ca.pem",
                        "default": "",
                    },
                    "gateway_sockets": {
                        "description": "Directory of the sockets of the endpoints' gateway, a short path",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/run/kaos",
                        "default": None,
                    },
                    "gateway_url": {
                        "description": "Address below which endpoints are",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "http://127.0.0.1:8081",
                        "default": None,
                    },
                    "runtimes": {
                        "description": "Runtimes that jobs may use, with commas; the first is the default",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": "process",
                    },
                    "network": {
                        "description": "Whether jobs may use the network unless they say; containers only",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                    "container_engine": {
                        "description": "podman or docker; empty for the one that is there",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "podman",
                        "default": "",
                    },
                    "container_network": {
                        "description": "Network of builds and of jobs that may use it; empty for the default",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "host",
                        "default": "",
                    },
                    "container_user": {
                        "description": "UID[:GID] of scripts whose image names no user; empty for root",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "65534:65534",
                        "default": "",
                    },
                    "image_builder": {
                        "description": "podman, buildah or docker; empty for the engine",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "buildah",
                        "default": "",
                    },
                    "registry": {
                        "description": "Host and repository that images are pushed to",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "registry.example.com/team/kaos",
                        "default": "",
                    },
                    "registry_conn_id": {
                        "description": "Connection to log in to the registry with; of type aws for ECR",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "my_registry",
                        "default": "",
                    },
                },
            }
        },
    }
