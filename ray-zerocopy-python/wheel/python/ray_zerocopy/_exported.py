"""Exported programs as parts of pickles: code apart from tensors."""

import copy
import io
import warnings

import torch


def reduce_program(program):
    """Pickles an ExportedProgram as its code with tensors of one element, and its tensors."""
    hollow = copy.copy(program)
    hollow._state_dict = {name: _hollow(tensor) for name, tensor in program.state_dict.items()}
    hollow._constants = {name: _hollow(value) for name, value in program.constants.items()}
    code = io.BytesIO()
    torch.export.save(hollow, code)
    constants = {name: value for name, value in program.constants.items() if isinstance(value, torch.Tensor)}
    return exported, (code.getvalue(), dict(program.state_dict), constants)


def _hollow(value):
    if not isinstance(value, torch.Tensor):
        return value
    # A tensor of the same shape would be allocated when the program is loaded.
    hollow = torch.zeros(1, dtype=value.dtype)
    return torch.nn.Parameter(hollow, requires_grad=value.requires_grad) if isinstance(value, torch.nn.Parameter) else hollow


def exported(code, state, constants):
    """Loads an ExportedProgram from its code, and sets its tensors."""
    with warnings.catch_warnings():
        # PyTorch warns that it reads its own file in place.
        warnings.simplefilter("ignore", UserWarning)
        program = torch.export.load(io.BytesIO(code))
    program._state_dict = state
    program._constants = {**program.constants, **constants}
    return program
