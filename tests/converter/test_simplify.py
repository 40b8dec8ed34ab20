"""Tests of `converter.simplify` and of the gate behind it."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import numpy_helper

from converter.errors import OutputsDiffer
from converter.exported import ExportResult
from converter.graph.edit import Rewrite, Variables, nodes_of
from converter.graph.facts import Facts
from converter.graph.pipeline import REWRITES
from converter.package import Provenance, build, clear, write_manifest
from converter.report import markdown
from converter.simplify import EVERYTHING, Simplified, simplify
from converter.simplify_and_prove import simplify_and_prove
from converter.sources.saved_model import read_saved_model
from protos.segue import package_pb2
from tests.converter.conftest import Exporter
from tests.converter.graph.conftest import Networks, network  # noqa: F401 - a fixture
from tests.converter.graph.simplifying import initializers


def test_equal_graphs_stay_equal(export: Exporter) -> None:
    """The same graph is rewritten to the same bytes, so that signatures that are one function still share a file."""
    gelu = export("gelu")
    (signature,) = gelu.signatures
    copy = signature.onnx.with_name("copy.onnx")
    copy.write_bytes(signature.onnx.read_bytes())
    entries = [dataclasses.replace(entry, onnx=1) for entry in gelu.initializers]
    twice = dataclasses.replace(
        gelu,
        signatures=(signature, dataclasses.replace(signature, onnx=copy)),
        initializers=(*gelu.initializers, *entries),
    )
    simple, reports = simplify(twice, without={})
    first, second = (one.onnx for one in simple.signatures)
    assert first.read_bytes() == second.read_bytes() != copy.read_bytes()
    assert reports[0] == reports[1]
    assert reports[0].nodes_after < reports[0].nodes_before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "bert", "transformer.keras"])
def test_every_variable_is_accounted_for(network: Networks, name: str) -> None:  # noqa: F811
    """Each variable that an initializer held is held by one still, element for element, with its new form told."""
    export = network(name)
    simple, _ = simplify(export, without={})
    held = {variable for entry in export.initializers for variable in entry.variables}
    assert {variable for entry in simple.initializers for variable in entry.variables} == held
    for entry in simple.initializers:
        before = initializers(export.signatures[entry.onnx].onnx)[entry.initializer]
        after = initializers(simple.signatures[entry.onnx].onnx)[entry.initializer]
        assert (numpy_helper.to_array(before).ravel() == numpy_helper.to_array(after).ravel()).all()
        shape = entry.variables[0].shape
        moved = [shape[axis] for axis in entry.transposition or range(len(shape))]
        assert entry.reshaped == (moved != list(after.dims))
        assert math.prod(shape) == math.prod(after.dims)


def test_data_files_are_shared(export: Exporter) -> None:
    """Large weights stay in the file where the exporter put them."""
    shared = export("shared", lean_bytes=1, large_model_bytes=1)
    simple, _ = simplify(shared, without={EVERYTHING: "to see"})
    assert [s.onnx for s in simple.signatures] == [s.onnx for s in shared.signatures]


def _spoil(model: ir.Model, facts: Facts, variables: Variables) -> int:  # noqa: ARG001 - a rewrite's form
    """Compute something else, in valid ONNX."""
    relus = list(nodes_of(model, "Gelu"))
    for node in relus:
        node.op_type = "Relu"
        node.attributes.clear()
    return len(relus)


def prove(export: ExportResult, source: Path, folder: Path, rewrites: Sequence[Rewrite]) -> package_pb2.ModelPackage:
    """Take an export through the gate."""
    definitions = read_saved_model(source).signatures
    provenance = Provenance("saved_model", "", source.name, 0, {}, {})

    def assemble(simple: ExportResult, simplified: Sequence[Simplified]) -> package_pb2.ModelPackage:
        clear(folder)
        manifest = build(folder, simple, simplified, definitions, provenance, tolerance=None)
        write_manifest(folder, manifest)
        return manifest

    manifest, proved = simplify_and_prove("model", folder, export, assemble, rewrites)
    assert all(not proof.difference.problem for proof in proved.proofs)
    return manifest


def test_a_rewrite_that_changes_answers_is_left_out(export: Exporter, zoo: Path, tmp_path: Path) -> None:
    """The gate tells a wrong rewrite from right ones: the others still apply, and the report says why it does not."""
    spoiling = [*REWRITES, Rewrite("spoil", "", _spoil)]
    manifest = prove(export("gelu"), zoo / "gelu", tmp_path, spoiling)
    (rewriting,) = manifest.rewritings
    assert dict(rewriting.applied) == {"layer-norm": 1, "gelu": 1}
    assert list(rewriting.left_out) == ["spoil"]
    assert "without spoil: " in markdown("model", manifest)
    assert (rewriting.opset, manifest.opset) == (20, 20)


def test_two_wrong_rewrites_leave_the_graph_as_exported(export: Exporter, zoo: Path, tmp_path: Path) -> None:
    """If leaving out one is not enough, nothing is rewritten."""
    spoiling = [*REWRITES, Rewrite("spoil", "", _spoil), Rewrite("again", "", _spoil_sums)]
    manifest = prove(export("gelu"), zoo / "gelu", tmp_path, spoiling)
    (rewriting,) = manifest.rewritings
    assert not rewriting.applied
    assert rewriting.nodes_after == rewriting.nodes_before
    assert list(rewriting.left_out) == [EVERYTHING]


def _spoil_sums(model: ir.Model, facts: Facts, variables: Variables) -> int:  # noqa: ARG001 - a rewrite's form
    differences = list(nodes_of(model, "Sub"))
    for node in differences:
        node.op_type = "Add"
    return len(differences)


def test_an_export_that_is_wrong_itself_fails(export: Exporter, zoo: Path, tmp_path: Path) -> None:
    """No rewrite is blamed for what the exporter did."""
    gelu = export("gelu")
    cases = tuple(
        dataclasses.replace(case, outputs={alias: array + 1 for alias, array in case.outputs.items()})
        for case in gelu.signatures[0].cases
    )
    wrong = dataclasses.replace(gelu, signatures=(dataclasses.replace(gelu.signatures[0], cases=cases),))
    with pytest.raises(OutputsDiffer):
        prove(wrong, zoo / "gelu", tmp_path, REWRITES)
