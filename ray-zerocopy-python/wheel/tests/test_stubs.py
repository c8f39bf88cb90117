"""The stubs name what the package has, with the same parameters, and every public object has a docstring."""

import ast
import dataclasses
import inspect
import pathlib

import ray_zerocopy as rz

STUBS = ast.parse(pathlib.Path(rz.__file__).with_suffix(".pyi").read_text())


def test_stubs_name_the_public_objects():
    classes = {node.name for node in STUBS.body if isinstance(node, ast.ClassDef)}
    assert classes == set(rz.__all__)


def test_stubs_have_the_parameters():
    for node in STUBS.body:
        if not isinstance(node, ast.ClassDef):
            continue
        kind = getattr(rz, node.name)
        assert kind.__doc__, node.name
        for method in node.body:
            if not isinstance(method, ast.FunctionDef):
                continue
            found = inspect.getattr_static(kind, method.name)
            if isinstance(found, property):
                assert found.__doc__ or method.name.startswith("_"), f"{node.name}.{method.name}"
                continue
            function = found.__func__ if isinstance(found, classmethod) else found
            expected = [each.name for each in inspect.signature(function).parameters.values()]
            arguments = method.args
            names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
            names += [arguments.vararg.arg] if arguments.vararg else []
            names += [each.arg for each in arguments.kwonlyargs] + ([arguments.kwarg.arg] if arguments.kwarg else [])
            assert names == expected, f"{node.name}.{method.name}"
            assert function.__doc__ or method.name.startswith("__"), f"{node.name}.{method.name}"


def test_stubs_of_the_benchmark():
    from ray_zerocopy import benchmark

    stubs = ast.parse(pathlib.Path(benchmark.__file__).with_suffix(".pyi").read_text())
    for node in stubs.body:
        if isinstance(node, ast.ClassDef):
            fields = [each.target.id for each in node.body if isinstance(each, ast.AnnAssign)]
            assert fields == [field.name for field in dataclasses.fields(getattr(benchmark, node.name))]
        elif isinstance(node, ast.FunctionDef):
            function = getattr(benchmark, node.name)
            names = [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
            assert names == list(inspect.signature(function).parameters) and function.__doc__


def test_package_is_typed():
    assert pathlib.Path(rz.__file__).with_name("py.typed").exists()
