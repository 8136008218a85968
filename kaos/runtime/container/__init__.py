"""The container runtime: user code in containers of podman or docker, images built of its Dockerfile."""
