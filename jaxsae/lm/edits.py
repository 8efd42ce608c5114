"""Edits of activations that are pytrees, so new values compile nothing.

Each is called on a site's activation x [B, T, D] and returns its new value,
computed in float32 and rounded to the dtype of x. Each has an optional `mask`,
of a shape that broadcasts to [B, T]: tokens where it is 0 or False stay as they
are. The formulas are those of one token, x [D].

Shapes: B batch, T time, D site width, F latents, K latents that are clamped.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxsae import latents
from jaxsae.brief import brief, fields
from jaxsae.errors import UserError
from jaxsae.lm.made import as_made, as_shape
from jaxsae.lm.sites import Taps

Edit = Callable[[jax.Array], jax.Array]  # [B, T, D] → [B, T, D]
Number = jax.Array | float


class Autoencoder(Protocol):
  """The part of an autoencoder or transcoder that edits need."""

  @property
  def w_dec(self) -> jax.Array:
    """The directions of the latents, [F, D]."""
    ...

  def encode(self, x: jax.Array) -> jax.Array:
    """Maps activations [..., D_in] to latents [..., F]."""
    ...

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps activations [..., D_in] to their reconstruction [..., D]."""
    ...


class Splice(struct.PyTreeNode):
  """Replaces the activation by the autoencoder's reconstruction.

    x ← sae(x) + (latents(z) − z) W_dec, z = sae.encode(x)

  With `keep_error` the first term is x itself, so the reconstruction error
  stays, and without an edit of latents nothing changes, to the bit.
  `splice(taps, Splice(transcoder))` reads the sites that the transcoder reads,
  and replaces those that it writes.

  Attributes:
    sae: an autoencoder of raw activations, or any pytree that maps [B, T, D]
      to [B, T, D] if there are no edits of latents.
    keep_error: keep the difference between activation and reconstruction.
    latents: an edit of the latents [B, T, F], such as `Steer`, or None.
    mask: tokens that are edited, broadcast to [B, T]; None: all.
  """

  sae: Autoencoder
  keep_error: bool = struct.field(pytree_node=False, default=False)
  latents: Edit | None = None
  mask: jax.Array | None = None

  __repr__ = fields

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the new activation [B, T, D]."""
    return at_output(self, x, x)

  def change(
    self, written: jax.Array, read: jax.Array, part: slice
  ) -> jax.Array:
    """Returns the new value, in float32, where the mask is not 0."""
    new = written if self.keep_error else self._reconstruction(read)[..., part]
    if self.latents is None:
      return new
    active = self.sae.encode(read)
    edited = self.latents(active)
    added = as_shape(edited, active.shape, "The edit of latents") - active
    directions = self.sae.w_dec[:, part]
    return new + jnp.matmul(added, directions, precision="highest")

  def _reconstruction(self, read: jax.Array) -> jax.Array:
    return as_made(self.sae(read), "The autoencoder")


class Steer(struct.PyTreeNode):
  """Adds a direction to the activation: x ← x + strength · direction.

  Attributes:
    direction: [D], not normalised here; a latent's is its row of `w_dec`.
    strength: a number, or an array that broadcasts to [B, T], such as [B, 1]
      for one strength per row.
    mask: tokens that are edited, broadcast to [B, T]; None: all.
  """

  direction: jax.Array
  strength: Number
  mask: jax.Array | None = None

  __repr__ = fields

  def __post_init__(self):
    if _is_array(self.direction):
      _set_float32(self, "strength")

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the new activation [B, T, D]."""
    direction = _direction(self, x)
    return _edited(
      self.mask, x, lambda x: x + _per_token(self.strength, x) * direction
    )


class Clamp(struct.PyTreeNode):
  """Sets latents of an autoencoder to a value and keeps everything else.

    x ← x + (value − z_i) · d_i, z = sae.encode(x), d_i = row i of W_dec

  The reconstruction error and the other latents' parts stay. A value of 0
  ablates the latents. `splice(taps, Clamp(transcoder, …))` reads the sites
  that the transcoder reads, and changes those that it writes.

  Attributes:
    sae: an autoencoder of raw activations.
    latent: index of the latent, or int [K], different indices.
    value: a number, or [K].
    mask: tokens that are edited, broadcast to [B, T]; None: all.

  Raises:
    UserError: the autoencoder has no such latent (not told inside `jit`).
  """

  sae: Autoencoder
  latent: jax.Array | int
  value: Number
  mask: jax.Array | None = None

  __repr__ = fields

  def __post_init__(self):
    if _is_array(getattr(self.sae, "w_dec", None)):
      if not isinstance(self.latent, jax.Array):
        object.__setattr__(self, "latent", self.checked_latent())
      _set_float32(self, "value")

  def checked_latent(self) -> Any:
    """Returns the latent; raises UserError unless the autoencoder has it."""
    return latents.checked(self.latent, self.sae.w_dec.shape[-2], "Clamp")

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the new activation [B, T, D]."""
    return at_output(self, x, x)

  def change(
    self, written: jax.Array, read: jax.Array, part: slice
  ) -> jax.Array:
    """Returns the new value, in float32, where the mask is not 0."""
    chosen = jnp.atleast_1d(self.checked_latent())  # [K]
    active = self.sae.encode(read)[..., chosen]
    value = jnp.broadcast_to(jnp.float32(self.value), chosen.shape)
    missing = value.reshape((1,) * (read.ndim - 1) + (-1,)) - active
    directions = self.sae.w_dec[chosen][:, part]
    return written + jnp.matmul(missing, directions, precision="highest")


class Ablate(struct.PyTreeNode):
  """Removes the component along a direction: x ← x − (x · d̂) d̂.

  d̂ is the direction divided by its norm; a direction of zeros removes nothing.
  To set a latent to zero instead, use `Clamp(sae, latent, 0)`.

  Attributes:
    direction: [D], of any length.
    mask: tokens that are edited, broadcast to [B, T]; None: all.
  """

  direction: jax.Array
  mask: jax.Array | None = None

  __repr__ = fields

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the new activation [B, T, D]."""
    direction = _direction(self, x)
    norm = jnp.sqrt(jnp.sum(jnp.square(direction)))
    unit = direction / jnp.where(norm > 0, norm, 1.0)

    def remove(x):
      return x - jnp.sum(x * unit, axis=-1, keepdims=True) * unit

    return _edited(self.mask, x, remove)


class Patch(struct.PyTreeNode):
  """Sets the activation to a value: x ← value.

  The site's mean makes it mean ablation, zeros make it zero ablation, and an
  activation captured from other tokens makes it activation patching.

  Attributes:
    value: [D], or an array that broadcasts to [B, T, D].
    mask: tokens that are edited, broadcast to [B, T]; None: all.
  """

  value: ArrayLike
  mask: jax.Array | None = None

  __repr__ = fields

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the new activation [B, T, D]."""
    value = _float32(self.value, "Patch", "value")
    if not _broadcasts(value.shape, x.shape):
      raise UserError(
        f"Patch has a value of shape {list(value.shape)}, and the activation"
        f" has {list(x.shape)}; give one vector, or one for each token."
      )
    value = value.reshape((1,) * (x.ndim - value.ndim) + value.shape)
    return _edited(self.mask, x, lambda x: jnp.broadcast_to(value, x.shape))


class TapsEdit(struct.PyTreeNode):
  """An edit of one site that is computed from other sites.

  `splice` makes it for a transcoder, and for autoencoders that read or write
  several sites.

  Attributes:
    edit: maps the activations that are read, joined, [B, T, D_in], to the new
      activations of all sites that are written, joined, [B, T, D].
    taps: the sites that are read and written.
    index: the index of the site among those that are written.
  """

  edit: Edit
  taps: Taps = struct.field(pytree_node=False)
  index: int = struct.field(pytree_node=False, default=0)

  __repr__ = fields

  def __call__(self, written: jax.Array, read: jax.Array) -> jax.Array:
    """Returns the new activation of the site that is written.

    Args:
      written: its activation.
      read: the activations that are read, joined.
    """
    part = self._part(written.shape[-1])
    if isinstance(self.edit, Splice | Clamp):
      return at_output(self.edit, written, read, part)
    who, wanted = f"The edit at {self.taps}", self._width(written)
    new = as_made(self.edit(read), who)
    if new.ndim != written.ndim:
      as_shape(new, (*written.shape[:-1], wanted), who)
    if len(self.taps.writes) > 1 and new.shape[-1] != wanted:
      raise UserError(
        f"The edit at {self.taps} made {new.shape[-1]} numbers for each token;"
        f" the sites that it writes have {wanted}."
      )
    return new[..., part]

  def _width(self, written: jax.Array) -> int:
    """Returns D, the width of all written sites, joined."""
    return len(self.taps.writes) * written.shape[-1]

  def _part(self, d: int) -> slice:
    """Returns the site's own columns among those of all written sites."""
    if len(self.taps.writes) == 1:
      return slice(None)
    return slice(self.index * d, (self.index + 1) * d)


def at_output(
  edit: Splice | Clamp,
  written: jax.Array,
  read: jax.Array,
  part: slice = slice(None),
) -> jax.Array:
  """Returns the new value of a site that need not be the one that is read.

  Args:
    edit: the edit.
    written: the activation of the site, [B, T, D].
    read: the activations that are read, [B, T, D_in].
    part: the columns of the autoencoder's output that belong to the site.
  """
  read = read.astype(jnp.float32)
  return _edited(edit.mask, written, lambda x: edit.change(x, read, part))


# A `Place` → its edit, or the edit that `splice` makes. Type checkers take no
# mapping from sites for one from places, so keys are not checked.
Edits = Mapping[Any, Edit | TapsEdit]


def is_pytree(edit: Edit | TapsEdit) -> bool:
  """Returns whether an edit consists of arrays that can be arguments of `jit`.

  A plain function is not: it may do something else at the next call, if a
  variable that it refers to has changed, and compiled code would not notice.
  """
  return all(map(_is_value, jax.tree.leaves(edit)))


def _is_value(leaf) -> bool:
  return _is_array(leaf) or isinstance(leaf, np.generic | int | float | complex)


def _is_array(x) -> bool:
  return isinstance(x, jax.Array | np.ndarray)


# The fields below hold arrays, except in trees of axes or shardings, which have
# the same class and must keep what they hold. So callers check first.


def _set_float32(edit, field: str) -> None:
  """Turns a Python number into an array, so that 8 and 8.5 compile once."""
  value = getattr(edit, field)
  if isinstance(value, int | float | list | tuple):
    with np.errstate(over="ignore"):  # what becomes infinite is told later
      object.__setattr__(edit, field, np.asarray(value, np.float32)[()])


def _edited(mask, x, change: Edit) -> jax.Array:
  """Applies a change in float32 to the tokens where the mask is not 0."""
  new = as_shape(change(x.astype(jnp.float32)), x.shape, "The edit")
  new = jnp.asarray(new).astype(x.dtype)
  return new if mask is None else jnp.where(_per_token(mask, x) != 0, new, x)


def _per_token(values, x) -> jax.Array:
  """Adds axes to values for tokens, so that they fit x [B, T, D].

  Raises:
    UserError: they do not broadcast to [B, T].
  """
  if not _is_value(values) and not isinstance(values, list | tuple):
    raise UserError(
      f"A mask or strength of {brief(values)} is no number; give one, as 8."
    )
  values, tokens = jnp.asarray(values), x.shape[:-1]
  if not _broadcasts(values.shape, tokens):
    raise UserError(
      f"A mask or strength of shape {list(values.shape)} does not fit tokens of"
      f" shape {list(tokens)}; give it a shape that broadcasts to theirs."
    )
  return values.reshape(
    (1,) * (len(tokens) - values.ndim) + values.shape + (1,)
  )


def _broadcasts(shape, target) -> bool:
  """Returns whether an array of this shape broadcasts to the target's."""
  pairs = zip(reversed(shape), reversed(target), strict=False)
  return len(shape) <= len(target) and all(n in (1, m) for n, m in pairs)


def _direction(edit, x) -> jax.Array:
  """Returns the edit's direction in float32, with the rank of x.

  Raises:
    UserError: it is not a vector of numbers, as long as the activation.
  """
  direction = _float32(edit.direction, type(edit).__name__, "direction")
  if direction.shape != x.shape[-1:]:
    raise UserError(
      f"{type(edit).__name__} has a direction of shape {list(direction.shape)},"
      f" and the activation has {list(x.shape)}; use a direction of this site,"
      f" with {x.shape[-1]} numbers."
    )
  return direction.reshape((1,) * (x.ndim - 1) + (-1,))


def _float32(given: ArrayLike, who: str, what: str) -> jax.Array:
  """Returns an array in float32; raises UserError if it has other values."""
  if _is_value(given) or isinstance(given, list | tuple):
    with contextlib.suppress(TypeError, ValueError):
      array = jnp.asarray(given)
      if not jnp.iscomplexobj(array):
        return array.astype(jnp.float32)
  raise UserError(
    f"{who} has a {what} of {brief(given)}; give an array of real numbers."
  )
