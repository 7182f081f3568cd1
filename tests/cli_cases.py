"""A call of the command line in the process of the tests."""

import sys

import pytest

from gno import cli


def gno(capsys, monkeypatch, *arguments):
    """Exit status, output and errors of one call in this process."""
    monkeypatch.setattr(sys, "argv", ["gno", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out = capsys.readouterr()
    return stopped.value.code, out.out, out.err
