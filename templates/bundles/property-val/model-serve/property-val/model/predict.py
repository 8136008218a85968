"""Estimate what houses sell for."""

import json

from model import MODEL


class InvalidRequest(Exception):
    """The request is at fault."""


def predict(body):
    """Return prices in US dollars of a house, or of a list: JSON objects with the columns of the data."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    houses = document if isinstance(document, list) else [document]
    if not houses or not all(isinstance(house, dict) for house in houses):
        raise InvalidRequest('send a house, {"Gr_Liv_Area": 1500, ...}, or a list of houses')
    for house in houses:
        for name, value in house.items():
            if not isinstance(value, int | float | str) or isinstance(value, bool):
                raise InvalidRequest(f"{name} must be a number or a text")
    return {"prices": [round(float(price)) for price in MODEL.predict(houses)]}
