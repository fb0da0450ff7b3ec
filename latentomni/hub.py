"""What is sent to the Hugging Face hub; what is fetched from it is a checkpoint's own matter."""

from pathlib import Path

from huggingface_hub import HfApi

from latentomni.errors import CheckpointError

__all__ = ["publish"]


def publish(folder: Path, hub_id: str, *, private: bool = False) -> str:
    """Send a folder to the hub, where the model `hub_id` is made unless it is there; returns its address. The token is the one that
    `hf auth login` or HF_TOKEN gave. Raises CheckpointError where the hub does not take it."""
    try:
        address = HfApi().create_repo(hub_id, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Upload a checkpoint of LatentOmni")
    except Exception as error:  # of several HTTP libraries
        said = str(error).strip().split("\n")[0]
        raise CheckpointError(f"'{hub_id}' cannot be published ({said}); log in with `hf auth login`, or check the name.") from error
    return str(address)
