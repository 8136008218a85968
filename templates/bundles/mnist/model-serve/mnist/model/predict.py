"""Read a picture of a digit."""

import io

import numpy as np
from model import MODEL
from PIL import Image, UnidentifiedImageError

SIDE = 28
LARGEST = 4096


class InvalidRequest(Exception):
    """The request is at fault."""


def predict(body):
    """Return the digit on a picture: a JPEG or PNG, dark ink on light paper."""
    return {"prediction": int(MODEL.predict(pixels(body))[0])}


def pixels(body):
    try:
        picture = Image.open(io.BytesIO(body), formats=["JPEG", "PNG"])
        if max(picture.size) > LARGEST:
            raise InvalidRequest(f"the picture is larger than {LARGEST} x {LARGEST}")
        grey = picture.convert("L").resize((SIDE, SIDE))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InvalidRequest("the body is no JPEG or PNG: send one with curl --data-binary @FILE") from error
    # In MNIST paper is 0 and ink is 255.
    return 255 - np.asarray(grey, dtype=np.uint8).reshape(1, SIDE * SIDE)
