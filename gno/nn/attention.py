"""Scale-adaptive attention: queries of every scale attend over the anchors of all scales."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gno.nn.precision import halves, working_type

# Logit of a key that is only there to fill the row of a shorter mesh.
PADDING = -1e4
# Queries that go through the fused attention together on a GPU. Its way back goes, for a block of keys, through all the
# queries it is given: with few keys a million of them would keep a handful of multiprocessors busy, and no others.
QUERIES = 8192
# Not cuDNN's, which torch prefers on an H100 from 2.11 on: it plans anew for every shape, some 30 ms each, and ragged
# batches have one of their own at every step.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Nodes of one or more scales of a batch, and how they lie in a padded (mesh, place) table.

    Args:
        position: in units of the case, on circles where coordinates repeat.
        log_mass: log m, zero mass at :data:`PADDING`. scale: level of each token.
        place: row-major place of each token in the table.
        table: token at each place (0 where there is none). filled: where there is one.
    """

    position: Float[Tensor, "n c"]
    log_mass: Float[Tensor, " n"]
    scale: Int[Tensor, " n"]
    place: Int[Tensor, " n"]
    table: Int[Tensor, "meshes longest"]
    filled: Tensor

    @staticmethod
    def build(position, mass, scale, batch, n_meshes: int, longest: int) -> Tokens:
        """Tokens of the same mesh keep their order."""
        n = len(batch)
        order = torch.argsort(batch, stable=True)
        count = torch.zeros(n_meshes, dtype=torch.long, device=batch.device).index_add_(
            0, batch, torch.ones_like(batch)
        )
        start = count.cumsum(0) - count
        by_mesh = batch.index_select(0, order)
        place_sorted = by_mesh * longest + torch.arange(n, device=batch.device) - start.index_select(0, by_mesh)
        place = torch.empty_like(place_sorted).index_copy_(0, order, place_sorted)
        table = torch.zeros(n_meshes * longest, dtype=torch.long, device=batch.device)
        table.index_copy_(0, place, torch.arange(n, device=batch.device))
        filled = torch.zeros(n_meshes * longest, dtype=torch.bool, device=batch.device).index_fill_(0, place, True)
        log_mass = mass.clamp_min(1e-30).log().clamp_min(PADDING)
        return Tokens(position, log_mass, scale, place, table.view(n_meshes, longest), filled.view(n_meshes, longest))

    def one_hot(self, n_scales: int, dtype: torch.dtype) -> Float[Tensor, "n n_scales"]:
        return (self.scale[:, None] == torch.arange(n_scales, device=self.scale.device)).to(dtype)

    def pad(self, values: Float[Tensor, "n c"]) -> Float[Tensor, "meshes longest c"]:
        if len(self.table) == 1:
            return values[None]
        return _Pad.apply(values, self).view(*self.table.shape, -1)

    def unpad(self, values: Float[Tensor, "meshes longest c"]) -> Float[Tensor, "n c"]:
        if len(self.table) == 1:
            return values[0]
        return _Unpad.apply(values.flatten(0, 1), self)


class _Pad(torch.autograd.Function):
    """To places of the table; both ways are gathers, where the gradient of an index would be a scatter with atomics."""

    @staticmethod
    def forward(ctx, values, tokens):
        ctx.tokens = tokens
        return values.index_select(0, tokens.table.flatten())

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.tokens.place), None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, tokens):
        ctx.tokens = tokens
        return values.index_select(0, tokens.place)

    @staticmethod
    def backward(ctx, grad):
        tokens = ctx.tokens
        return grad.index_select(0, tokens.table.flatten()) * tokens.filled.flatten()[:, None], None


class CrossScaleAttention(nn.Module):
    """``logit = q_{s,i}·k_{s′,j} − γ|x_i − x_j|² + log m_j + β_{s,s′}``, softmax over all anchors j of all scales s′.

    Masses sum to one at every scale, so scales compete fairly; log m makes the sum a quadrature, which refinement does
    not change (cf. Cao 2021, Choose a Transformer). The mass, scale and distance terms are folded into a few extra
    channels of queries and keys, so that the fused attention of torch runs without a mask.
    """

    def __init__(self, width: int, n_heads: int, n_scales: int, dim: int) -> None:
        super().__init__()
        self.n_heads, self.n_scales, self.head_width = n_heads, n_scales, width // n_heads
        self.content = self.head_width - n_scales - dim
        self.query = nn.Linear(width, n_heads * self.content, bias=False)
        self.key = nn.Linear(width, n_heads * self.content, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.scale_bias = nn.Parameter(torch.zeros(n_heads, n_scales, n_scales))
        # From global heads to heads that look about a fifth of the domain far.
        self.log_gamma = nn.Parameter(torch.linspace(-2.0, 3.5, n_heads))

    def forward(
        self, queries: Float[Tensor, "n width"], keys: Float[Tensor, "k width"], at: Tokens, over: Tokens
    ) -> Float[Tensor, "n width"]:
        q, k = self._heads(self._queries(queries, at), at), self._padded_keys(keys, over)
        v = self._heads(self.value(keys).view(-1, self.n_heads, self.head_width), over)
        if q.shape[3] > self.head_width:  # the fused kernels want one width
            v = nn.functional.pad(v, (0, q.shape[3] - self.head_width))
        parts = -(-q.shape[2] // QUERIES) if q.is_cuda else 1
        mixed = attended(q, k, v, parts)[..., : self.head_width]
        return self.out(at.unpad(mixed.transpose(1, 2).flatten(2)))

    @torch.no_grad()
    def scale_attention(
        self, queries: Tensor, keys: Tensor, at: Tokens, over: Tokens, *, chunk: int = 4096
    ) -> Float[Tensor, "n n_scales"]:
        """α_{s,s′}(x): how much of the attention of each query goes to scale s′, mean over heads."""
        q, k = self._heads(self._queries(queries, at), at), self._padded_keys(keys, over)
        scale = over.pad(over.one_hot(self.n_scales, q.dtype)) * over.filled[..., None]
        parts = [((c @ k.transpose(2, 3)).softmax(3) @ scale[:, None]).mean(1) for c in q.split(chunk, dim=2)]
        return at.unpad(torch.cat(parts, dim=1))

    def _heads(self, values: Float[Tensor, "n heads c"], tokens: Tokens) -> Float[Tensor, "meshes heads longest c"]:
        return tokens.pad(values.flatten(1)).unflatten(2, (self.n_heads, -1)).transpose(1, 2)

    def _padded_keys(self, values: Tensor, over: Tokens) -> Float[Tensor, "meshes heads longest c"]:
        keys = self._heads(self._keys(values, over), over)
        if over.table.numel() == len(over.place):
            return keys
        empty = torch.where(over.filled, 0.0, PADDING).to(keys.dtype)[:, None, :, None]
        return torch.cat([keys[..., : -self.n_scales], keys[..., -self.n_scales :] + empty], dim=3)

    def _queries(self, values: Tensor, at: Tokens) -> Float[Tensor, "n heads c"]:
        dtype = working_type(values)
        if dtype.itemsize > 2:
            return self._full_queries(values, at)
        content = nn.functional.linear(values, self.content**-0.5 * self.query.weight)
        content = content.view(-1, self.n_heads, self.content)
        place = (2 * self.log_gamma.exp())[:, None] * at.position[:, None]
        scale = at.one_hot(self.n_scales, dtype)[:, None].expand(-1, self.n_heads, -1)
        # Short numbers: x·y = x_h·y_h + x_l·y_h + x_h·y_l, or a logit of some tens would be off by a tenth.
        high, low = halves(place, dtype)
        return _side_by_side(content, high, low, high, scale, scale)

    def _full_queries(self, values: Tensor, at: Tokens) -> Float[Tensor, "n heads c"]:
        """``[Q v / √c, 2γ x, 1_s]`` by head, as two products in one tensor: queries are many, and parts beside parts
        would be written twice."""
        free = at.position.shape[1] + self.n_scales
        content = self.content**-0.5 * self.query.weight.unflatten(0, (self.n_heads, -1))
        content = nn.functional.pad(content, (0, 0, 0, free))  # (heads, head_width, width)
        gains = torch.ones_like(self.log_gamma)[:, None].expand(-1, free).clone()
        gains[:, : at.position.shape[1]] = 2 * self.log_gamma.exp()[:, None]
        known = nn.functional.pad(torch.diag_embed(gains), (self.content, 0))  # (heads, free, head_width)
        place = torch.cat([at.position, at.one_hot(self.n_scales, at.position.dtype)], dim=1)
        queries = place @ known.transpose(0, 1).flatten(1)
        return queries.addmm_(values, content.flatten(0, 1).T).unflatten(1, (self.n_heads, -1))

    def _keys(self, values: Tensor, over: Tokens) -> Float[Tensor, "n heads c"]:
        content = self.key(values).view(-1, self.n_heads, self.content)
        place = over.position[:, None].expand(-1, self.n_heads, -1)
        far = self.log_gamma.exp() * over.position.square().sum(1, keepdim=True)
        scale = over.one_hot(self.n_scales, far.dtype)[:, None, None]
        bias = (scale * self.scale_bias).sum(3) + (over.log_mass[:, None] - far)[..., None]
        dtype = working_type(values)
        if dtype.itemsize > 2:
            return torch.cat([content, place.to(dtype), bias.to(dtype)], dim=2)
        (high, low), biases = halves(place, dtype), halves(bias, dtype)
        return _side_by_side(content, high, high, low, *biases)


def attended(
    q: Float[Tensor, "meshes heads n c"],
    k: Float[Tensor, "meshes heads m c"],
    v: Float[Tensor, "meshes heads m c"],
    parts: int = 1,
) -> Float[Tensor, "meshes heads n c"]:
    """``softmax(q kᵀ) v``, with the queries of a mesh in parts, as if they were of several meshes."""
    meshes, _, n, _ = q.shape
    if parts > 1:
        rows = -(-n // parts)
        filled = nn.functional.pad(q, (0, 0, 0, parts * rows - n)) if parts * rows > n else q
        q = filled.unflatten(2, (parts, rows)).transpose(1, 2).flatten(0, 1)
        k, v = (x[:, None].expand(-1, parts, -1, -1, -1).flatten(0, 1) for x in (k, v))
    with sdpa_kernel(KERNELS):
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    if parts > 1:
        mixed = mixed.unflatten(0, (meshes, parts)).transpose(1, 2).flatten(2, 3)[:, :, :n]
    return mixed


def _side_by_side(*parts: Float[Tensor, "n heads _"]) -> Float[Tensor, "n heads even"]:
    """One after the other, after zeros up to a multiple of eight channels, which is what the fused kernels take."""
    n, heads, _ = parts[0].shape
    missing = -sum(x.shape[2] for x in parts) % 8
    return torch.cat([parts[0].new_zeros(1).expand(n, heads, missing), *parts], dim=2)
