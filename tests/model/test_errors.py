import pickle

import pytest

from model import errors


@pytest.mark.parametrize("kind", [errors.OverreadError, *errors.OverreadError.__subclasses__()])
def test_an_error_survives_the_way_out_of_a_decoding_process(kind):
    there = kind("some_code", "A sentence.")
    back = pickle.loads(pickle.dumps(there))
    assert (type(back), back.code, str(back)) == (kind, "some_code", "A sentence.")
