import numpy as np
import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import GATv2Conv, SAGEConv

from gno.graph import SampleSpec, build_sample, collate
from gno.mesh import CellBlock, Mesh, cell_volume
from gno.nn import OperatorConfig
from gno.nn.attention import Tokens, attended
from gno.nn.link import DownLink, Link, down_weights
from gno.nn.norm import RMSNorm


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.fixture(scope="module")
def pair():
    samples = samples_of(square(9), square(11, seed=1))
    return samples, operator_for(samples[0])


def test_transfers_keep_constants_and_integrals(pair):
    samples, model = pair
    out = model(collate(samples))
    for s, transfer in enumerate(out.transfers):
        fine = torch.randn(len(out.mass[s]), 2, dtype=torch.float64)
        coarse = torch.randn(len(out.mass[s + 1]), 2, dtype=torch.float64)
        one = torch.ones_like(coarse)
        assert difference(transfer.prolong(one), torch.ones_like(fine)) < 1e-12
        assert difference(transfer.restrict(torch.ones_like(fine)), one) < 1e-12
        assert difference(out.mass[s + 1] @ transfer.restrict(fine), out.mass[s] @ fine) < 1e-12
        assert difference(out.mass[s] @ transfer.prolong(coarse), out.mass[s + 1] @ coarse) < 1e-12
        # ⟨Ru, v⟩ = ⟨u, Pv⟩
        left = (out.mass[s + 1][:, None] * transfer.restrict(fine) * coarse).sum()
        right = (out.mass[s][:, None] * fine * transfer.prolong(coarse)).sum()
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)
        # anchors move to the centroids of what they hold
        torch.testing.assert_close(transfer.restrict(out.position[s]), out.position[s + 1], rtol=1e-12, atol=1e-14)


def test_a_link_to_many_nodes_is_the_link_with_its_map_in_front(pair):
    samples, model = pair
    transfer = model(collate(samples)).transfers[0].detach()
    plain, first = Link(model.config).double(), DownLink(model.config).double()
    first.load_state_dict(plain.state_dict())
    torch.nn.init.normal_(first.map.bias)
    plain.map.bias = first.map.bias
    anchors = torch.randn(len(transfer.coarse_mass), model.config.width, dtype=torch.float64)
    offset = torch.randn(model.config.dim, len(transfer.weights), dtype=torch.float64)
    weights = down_weights(transfer, offset.unbind())
    assert difference(first(anchors, weights, transfer.edges), plain(anchors, weights, transfer.edges)) < 1e-12


def test_outputs_are_conservative_per_mesh(pair):
    samples, model = pair
    out = model(collate(samples))
    for s in range(len(out.fields)):
        for mesh in (0, 1):
            here = out.batch[s] == mesh
            integral = out.mass[s][here] @ out.fields[s][here]
            coarsest = out.batch[-1] == mesh
            assert difference(integral, out.mass[-1][coarsest] @ out.fields[-1][coarsest]) < 1e-11
            assert abs(out.mass[s][here].sum().item() - 1) < 1e-12


@pytest.mark.parametrize("dim", [2, 3])
def test_a_ragged_batch_equals_the_singles(dim):
    samples = samples_of(*(square(n, seed=n, dim=dim) for n in ((5, 7, 9) if dim == 2 else (4, 5))))
    model = operator_for(samples[0])
    together = model(collate(samples), return_attention=True)
    for i, sample in enumerate(samples):
        alone = model(collate([sample]), return_attention=True)
        for s in range(len(alone.fields)):
            here = together.batch[s] == i
            assert difference(together.fields[s][here], alone.fields[s]) < 1e-12
            assert difference(together.attention[s][here], alone.attention[s]) < 1e-12


def test_node_order_does_not_matter():
    mesh = square(9)
    order = np.random.default_rng(1).permutation(mesh.n_nodes)
    turned = Mesh(
        mesh.points[order],
        (CellBlock("triangle", np.argsort(order)[mesh.cells[0].nodes]),),
        {k: v[order] for k, v in mesh.point_fields.items()},
        point_sets={"left": np.argsort(order)[mesh.point_sets["left"]]},
    )
    spec = spec_of(mesh)
    one, two = samples_of(mesh, turned, spec=spec)
    model = operator_for(one)
    assert difference(model(collate([two])).fields[0], model(collate([one])).fields[0][order]) < 1e-11


def test_millimetres_equal_metres():
    metres, millimetres = square(9), square(9, scale=1000.0)
    (one,), (two,) = samples_of(metres), samples_of(millimetres)
    model = operator_for(one)
    assert difference(model(collate([two])).fields[0], model(collate([one])).fields[0]) < 1e-11


def test_attention_over_scales_is_a_share(pair):
    samples, model = pair
    alpha = model(collate(samples), return_attention=True).attention
    for a in alpha:
        assert (a >= 0).all() and difference(a.sum(1), torch.ones(len(a), dtype=torch.float64)) < 1e-12
        assert (a[:, 0] == 0).all() and (a[:, 1:] > 0).all()  # keys are anchors; every scale of them is heard


def test_log_mass_makes_scales_compete_fairly(pair):
    """With content, bias and distance switched off, attention to a scale is its total mass over that of all scales."""
    samples, model = pair
    with torch.no_grad():
        attention = model.blocks[-1].attention
        saved = [p.clone() for p in attention.parameters()]
        attention.query.weight.zero_()
        attention.log_gamma.fill_(-30.0)
        alpha = model(collate(samples), return_attention=True).attention[0]
        for p, old in zip(attention.parameters(), saved, strict=True):
            p.copy_(old)
    assert difference(alpha[:, 1:], torch.full_like(alpha[:, 1:], 0.5)) < 1e-10


def test_fused_attention_equals_the_formula():
    samples = samples_of(square(5), square(7, seed=1))
    model = operator_for(samples[0])
    attend, out = model.attend, model(collate(samples))
    v = [torch.randn(len(m), 32, dtype=torch.float64) for m in out.mass]
    with torch.no_grad():
        attend.scale_bias.normal_()
    at = Tokens.build(out.position[0], out.mass[0], torch.zeros_like(out.batch[0]), out.batch[0], 2, 49)
    scale = torch.cat([torch.full_like(b, s) for s, b in enumerate(out.batch[1:], 1)])
    position, mass, mesh = (torch.cat(x[1:]) for x in (out.position, out.mass, out.batch))
    over = Tokens.build(position, mass, scale, mesh, 2, int(torch.bincount(mesh).max()))
    keys = torch.cat(v[1:])
    fused = attend(v[0], keys, at, over)
    q = attend.query(v[0]).view(-1, 2, attend.content) * attend.content**-0.5
    k = attend.key(keys).view(-1, 2, attend.content)
    far = (out.position[0][:, None] - position[None]).square().sum(2)
    logits = torch.einsum("ihc,jhc->hij", q, k) - attend.log_gamma.exp()[:, None, None] * far
    logits = logits + mass.log() + attend.scale_bias[:, 0][:, scale][:, None]
    logits = logits.masked_fill(out.batch[0][:, None] != mesh[None], -torch.inf)
    mixed = torch.einsum("hij,jhc->ihc", logits.softmax(2), attend.value(keys).view(-1, 2, 16))
    assert difference(fused, attend.out(mixed.flatten(1))) < 1e-12


@pytest.mark.parametrize("parts", [2, 5])
def test_attention_in_parts_is_the_same_with_the_same_gradient(parts):
    """As on a GPU, where the number of queries is not one of parts, or each mesh has a table of its own."""
    inputs = [torch.randn(2, 3, n, 8, dtype=torch.float64, requires_grad=True) for n in (23, 6, 6)]
    grad = torch.randn(2, 3, 23, 8, dtype=torch.float64)
    whole, cut = (attended(*inputs, parts=n) for n in (1, parts))
    torch.testing.assert_close(cut, whole)
    torch.testing.assert_close(torch.autograd.grad(cut, inputs, grad), torch.autograd.grad(whole, inputs, grad))


def test_attention_leaves_cudnn_out():
    allowed = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "scaled_dot_product" in function.overloadpacket.__name__:
                allowed.append([torch._C._get_cudnn_sdp_enabled(), torch._C._get_flash_sdp_enabled()])
            return function(*args, **(kwargs or {}))

    q = torch.randn(1, 2, 8, 16)
    with Seen():
        attended(q, q, q)
    assert allowed and all(x == [False, True] for x in allowed)


def test_restricted_targets_carry_no_gradient(pair):
    samples, model = pair
    batch = collate(samples)
    assert not any(level.requires_grad for level in model(batch).restrict(batch.y))


@pytest.mark.parametrize("convolution", [SAGEConv, GATv2Conv])
def test_any_convolution_of_torch_geometric_can_work_on_the_mesh(convolution):
    meshes = square(5), square(7, seed=1)
    samples = samples_of(*meshes, spec=spec_of(*meshes, edges=True))
    model = operator_for(samples[0], convolutions=(convolution(32, 32), convolution(32, 32)))
    with pytest.raises(ValueError, match="expected samples of a spec with edges=True"):
        model(collate(samples_of(*meshes)))
    together, alone = model(collate(samples)), model(collate(samples[1:]))
    assert difference(together.fields[0][together.batch[0] == 1], alone.fields[0]) < 1e-12
    together.fields[0].sum().backward()
    assert all(p.grad is not None for layer in (model.mesh_in, model.mesh_out) for p in layer.kernel.parameters())


def test_a_single_node_component_works():
    mesh = square(5)
    fields = {k: np.concatenate([v, v[:1]]) for k, v in mesh.point_fields.items()}
    alone = Mesh(np.concatenate([mesh.points, [[1.5, 1.5]]]), mesh.cells, fields, point_sets=mesh.point_sets)
    (sample,) = samples_of(alone)
    assert sample.mass_0[-1] == 0  # no cell, no volume
    out = operator_for(sample)(collate([sample]))
    assert all(torch.isfinite(u).all() for u in out.fields)
    out.fields[0].sum().backward()


def test_every_parameter_learns(pair):
    samples, model = pair
    model.zero_grad()
    out = model(collate(samples))
    sum(u.square().sum() for u in out.fields).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_one_sample_can_be_learned_by_heart():
    (sample,) = samples_of(square(7))
    model, batch = operator_for(sample), collate([sample])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(150):
        loss = (model(batch).fields[0] - batch.y).square().mean()
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 2e-3 * first


def test_ablations_run():
    samples = samples_of(square(7))
    for options in ({"attention": False}, {"learned_pooling": False}):
        out = operator_for(samples[0], **options)(collate(samples))
        assert torch.isfinite(out.fields[0]).all()


def test_the_mesh_alone_is_one_level():
    samples = [build_sample(square(n, seed=n), spec_of(square(7), n_levels=1), torch.float64) for n in (5, 7)]
    model = operator_for(samples[0])
    together, alone = model(collate(samples), return_attention=True), model(collate(samples[1:]))
    assert together.attention is None and len(together.fields) == 1
    assert difference(together.fields[0][together.batch[0] == 1], alone.fields[0]) < 1e-12


def test_config_errors():
    with pytest.raises(ValueError, match="heads"):
        OperatorConfig(dim=3, n_inputs=1, n_geometry=1, n_outputs=1, n_levels=4, width=32, n_heads=8)
    with pytest.raises(ValueError, match="n_levels"):
        OperatorConfig(dim=3, n_inputs=1, n_geometry=1, n_outputs=1, n_levels=0)


def test_missing_and_leaking_fields_are_named():
    mesh = square(5)
    with pytest.raises(ValueError, match=r"field 'b'.*point: a, u, w"):
        spec_of(mesh).fit([mesh], inputs=["b"], targets=["u"])
    with pytest.raises(ValueError, match=r"'u'.*both"):
        spec_of(mesh).fit([mesh], inputs=["u"], targets=["u"])
    bare = mesh.replace(point_fields={"u": mesh.point_fields["u"]})
    with pytest.raises(ValueError, match="point field 'a'"):
        build_sample(bare, spec_of(mesh))


@pytest.mark.parametrize("dim", [2, 3])
def test_probes_change_nothing_on_the_mesh(dim):
    mesh = square(7, dim=dim)
    spec = spec_of(mesh)
    probes = np.random.default_rng(0).uniform(0.02, 0.98, (300, dim))
    plain, probed = build_sample(mesh, spec, torch.float64), build_sample(mesh, spec, torch.float64, probes=probes)
    model = operator_for(plain)
    one, two = model(collate([plain])), model(collate([probed]))
    assert difference(two.fields[0][: mesh.n_nodes], one.fields[0]) < 1e-12
    assert torch.isfinite(two.fields[0][mesh.n_nodes :]).all()
    for s in range(1, 3):
        torch.testing.assert_close(two.mass[s], one.mass[s], rtol=1e-12, atol=1e-15)


def test_a_probe_at_a_node_reads_about_what_the_node_reads():
    mesh = square(17)
    spec = spec_of(mesh)
    sample = build_sample(mesh, spec, torch.float64, probes=mesh.points)
    model = operator_for(build_sample(mesh, spec, torch.float64))
    u = model(collate([sample])).fields[0]
    nodes, probes = u[: mesh.n_nodes], u[mesh.n_nodes :]
    assert ((nodes - probes).norm() / (nodes - nodes.mean(0)).norm()).item() < 0.05


def test_keys_may_start_at_a_coarser_level():
    samples = samples_of(square(9), square(11, seed=1))
    model = operator_for(samples[0], key_level=2, mesh_key_level=2)
    together = model(collate(samples), return_attention=True)
    alone = model(collate(samples[1:]), return_attention=True)
    for s in range(3):
        here = together.batch[s] == 1
        assert difference(together.fields[s][here], alone.fields[s]) < 1e-12
        assert (together.attention[s][:, :2] == 0).all() and difference(
            together.attention[s][:, 2], torch.ones(len(here), dtype=torch.float64)
        ) < 1e-12
    for name in ("key_level", "mesh_key_level"):
        with pytest.raises(ValueError, match=f"^{name}"):
            operator_for(samples[0], **{name: 3})


def test_the_mesh_may_attend_to_fewer_levels_than_anchors_do():
    samples = samples_of(square(9))
    batch, asked = collate(samples), []
    for level in (1, 2):
        model = operator_for(samples[0], mesh_key_level=level)
        keys: list[torch.Tensor] = []
        model.attend.register_forward_pre_hook(lambda _, inputs, keys=keys: keys.append(inputs[3].scale))
        shares = model(batch, return_attention=True).attention
        asked.append(keys[0].unique().tolist())
        assert (shares[1][:, 1] > 0).all()  # anchors attend to level 1 in any case
        assert difference(shares[0].sum(1), torch.ones(len(shares[0]), dtype=torch.float64)) < 1e-12
    assert asked == [[1, 2], [2]]


def test_logarithms_are_taken_before_cell_values_move_to_nodes():
    mesh = square(5)
    k = np.where(np.arange(mesh.n_cells) % 2, 1.0, 100.0)
    mesh = mesh.replace(cell_fields={"k": k}, point_fields={"u": mesh.points[:, 0]})
    spec = SampleSpec.fit([mesh], inputs=["k"], targets=["u"], log=["k"])
    sample = build_sample(mesh, spec, torch.float64)
    average = np.log(k) @ cell_volume(mesh)  # the integral of log k, whatever the cells
    assert abs((sample.mass_0 @ sample.x[:, 0]).item() - average) < 1e-12
    bad = mesh.replace(cell_fields={"k": -k})
    with pytest.raises(ValueError, match="field 'k': expected values > 0 for log, got -100"):
        build_sample(bad, spec)


def test_the_norm_is_torchs_with_its_gradients():
    torch.manual_seed(0)
    x, weight = torch.randn(7, 6, dtype=torch.float64, requires_grad=True), torch.rand(6, dtype=torch.float64)
    own, plain = RMSNorm(6).double(), torch.nn.RMSNorm(6).double()
    for norm in (own, plain):
        norm.load_state_dict({"weight": weight})
    torch.testing.assert_close(own(x), plain(x))
    assert torch.autograd.gradcheck(
        lambda x, g: torch.func.functional_call(own, {"weight": g}, (x,)), (x, weight.requires_grad_())
    )
    assert torch.isfinite(own(0 * x)).all()
