"""What is read out of compiled programs: FLOPs, loops, traffic, collectives, source lines."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from albert_jax.train.costs import axes_of
from albert_jax.train.program import Program

# As XLA prints programs for TPUs: products as convolutions, arrays in vector memory as S(1), loops
# without their number of turns.
TPU = """HloModule jit_step, is_scheduled=true

FileNames
1 "/home/me/albert_jax/model/layers.py"
2 "/home/me/site-packages/jax/numpy.py"

FunctionNames
1 "Dense.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=75 end_line=75 column=1 end_column=9}
2 {file_name_id=2 function_name_id=1 line=9 end_line=9 column=1 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%fused (p.0: bf16[256,64], p.1: bf16[5,64,32], p.2: s32[]) -> bf16[256,32] {
  %p.0 = bf16[256,64]{1,0:T(8,128)(2,1)} parameter(0)
  %p.1 = bf16[5,64,32]{2,1,0:T(8,128)(2,1)} parameter(1)
  %p.2 = s32[]{:T(128)} parameter(2)
  %slice = bf16[1,64,32]{2,1,0:T(8,128)(2,1)} dynamic-slice(%p.1, %p.2), dynamic_slice_sizes={1,64,32}
  %kernel = bf16[64,32]{1,0:T(8,128)(2,1)} bitcast(%slice)
  ROOT %dot = bf16[256,32]{1,0:T(8,128)(2,1)} convolution(%p.0, %kernel), dim_labels=bf_io->bf
}

%condition (state: (s32[], bf16[256,64])) -> pred[] {
  %state = (s32[]{:T(128)}, bf16[256,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %turns = s32[]{:T(128)} constant(5)
  %at = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%at, %turns), direction=LT
}

%body (state.1: (s32[], bf16[256,64])) -> (s32[], bf16[256,64]) {
  %state.1 = (s32[]{:T(128)}, bf16[256,64]{1,0:T(8,128)(2,1)S(1)}, bf16[5,64,32]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %x = bf16[256,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%state.1), index=1
  %w = bf16[5,64,32]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state.1), index=2
  %fusion.1 = bf16[256,32]{1,0:T(8,128)(2,1)} fusion(%x, %w, %i), kind=kOutput, calls=%fused, metadata={op_name="jit(step)/jvp(feed_forward)/dot_general" stack_frame_id=2}, backend_config={"estimated_cycles":"1000"}
  ROOT %out = (s32[]{:T(128)}, bf16[256,64]{1,0:T(8,128)(2,1)S(1)}, bf16[5,64,32]{2,1,0:T(8,128)(2,1)}) tuple(%i, %x, %w)
}

ENTRY %main (a: bf16[256,64], b: bf16[5,64,32]) -> bf16[256,64] {
  %a = bf16[256,64]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[5,64,32]{2,1,0:T(8,128)(2,1)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %copy-start = (bf16[256,64]{1,0:T(8,128)(2,1)S(1)}, bf16[256,64]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = bf16[256,64]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %begin = (s32[]{:T(128)}, bf16[256,64]{1,0:T(8,128)(2,1)S(1)}, bf16[5,64,32]{2,1,0:T(8,128)(2,1)}) tuple(%zero, %copy-done, %b)
  %loop = (s32[]{:T(128)}, bf16[256,64]{1,0:T(8,128)(2,1)S(1)}, bf16[5,64,32]{2,1,0:T(8,128)(2,1)}) while(%begin), condition=%condition, body=%body
  %y = bf16[256,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%loop), index=1
  %sum-start = bf16[256,64]{1,0} all-reduce-start(%y), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %sum = bf16[256,64]{1,0:T(8,128)(2,1)} all-reduce-done(%sum-start)
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def tpu() -> Program:
    return Program(TPU)


def named(program: Program, name: str):
    (found,) = [one for one in program.instructions if one.name == name]
    return found


def test_a_loop_turns_as_often_as_its_condition_says(tpu):
    assert named(tpu, "fusion.1").times == 5
    assert named(tpu, "copy-start").times == 1


def test_a_product_that_is_printed_as_a_convolution(tpu):
    assert tpu.flops(named(tpu, "fusion.1")) == 2 * 256 * 64 * 32


@pytest.mark.parametrize(
    ("shapes", "window", "flops"),
    [
        # 32 products of 64×16 by 16×64: a batch as a dilated axis.
        (
            ("[32,64,1,16]", "[32,64,1,16]", "[32,64,1,64]"),
            "window={size=32x1 stride=31x1 lhs_dilate=32x1}, dim_labels=0b1f_0o1i->0b1f",
            2 * 32 * 64 * 64 * 16,
        ),
        # A sum over two axes, one of them printed as a window.
        (
            ("[32,512,64]", "[32,512,16]", "[64,16,1]"),
            "window={size=32}, dim_labels=0fb_0io->bf0",
            2 * 32 * 512 * 64 * 16,
        ),
    ],
)
def test_batches_and_sums_that_are_printed_as_windows(shapes, window, flops):
    left, right, out = shapes
    text = (
        f"ENTRY %main (a: f32{left}, b: f32{right}) -> f32{out} {{\n"
        f"  %a = f32{left} parameter(0)\n"
        f"  %b = f32{right} parameter(1)\n"
        f"  ROOT %dot = f32{out} convolution(%a, %b), {window}\n"
        "}\n"
    )
    program = Program(text)
    assert program.flops(named(program, "dot")) == flops


def test_traffic_is_of_what_is_touched_in_device_memory(tpu):
    # x is in vector memory; of the stack of weights, one slice is read, and its number.
    assert tpu.traffic(named(tpu, "fusion.1")) == 2 * (64 * 32 + 256 * 32) + 4
    assert tpu.traffic(named(tpu, "copy-start")) == 2 * 256 * 64
    assert tpu.traffic(named(tpu, "copy-done")) == 0


def test_an_asynchronous_collective_counts_once(tpu):
    (found,) = tpu.collectives()
    assert (found.kind, found.bytes, found.times, found.dtype) == (
        "all-reduce", 2 * 256 * 64, 1, "bf16",
    )  # fmt: skip
    assert found.groups == ((0, 1), (2, 3))


def test_an_instruction_is_of_the_innermost_line_of_the_package(tpu):
    assert tpu.sources.line(named(tpu, "fusion.1")) == "albert_jax/model/layers.py:75"
    assert tpu.sources.line(named(tpu, "copy-start")) is None


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        Program("some text")


def test_products_and_loops_of_this_machines_compiler():
    def loss(w_DD, x_BD):
        def layer(x_BD, _):
            return jnp.tanh(x_BD @ w_DD), None

        return jax.lax.scan(layer, x_BD, length=7)[0].sum()

    arguments = jnp.ones((64, 64)), jnp.ones((32, 64))
    program = Program(jax.jit(jax.grad(loss)).lower(*arguments).compile().as_text() or "")
    flops = sum(one.times * program.flops(one) for one in program.instructions)
    assert flops == 3 * 7 * 2 * 32 * 64 * 64


@pytest.mark.parametrize(
    ("axes", "sizes"), [(("data",), 2), (("fsdp",), 4), (("data", "fsdp"), 8)], ids=str
)
def test_collectives_are_found_with_their_axes(axes, sizes):
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3)

    @partial(
        jax.shard_map, mesh=mesh, in_specs=P(("data", "fsdp")), out_specs=P(), check_vma=False
    )
    def total(x):
        return jax.lax.psum(x, axes)

    x = jax.ShapeDtypeStruct(
        (16, 3), jnp.float32, sharding=NamedSharding(mesh, P(("data", "fsdp")))
    )
    (found,) = Program(jax.jit(total).lower(x).compile().as_text() or "").collectives()
    assert (found.kind, found.bytes, found.times) == ("all-reduce", 2 * 3 * 4, 1)
    assert {len(group) for group in found.groups} == {sizes}
    assert axes_of(found.groups, dict(mesh.shape)) == "·".join(axes)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,2},{1,3}}", ((0, 2), (1, 3))),
        ("{}", ()),
        ("[2,2]<=[4]", ((0, 1), (2, 3))),
        ("[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("mesh['a'=2,'b'=2] {'b'}", ((0, 1), (2, 3))),
        ("mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
    ],
)
def test_groups_in_every_form_that_is_printed(text, groups):
    (found,) = Program(
        "ENTRY %main (a: f32[4]) -> f32[4] {\n"
        "  %a = f32[4]{0} parameter(0)\n"
        f"  ROOT %sum = f32[4]{{0}} all-reduce(%a), channel_id=1, replica_groups={text}, "
        "use_global_device_ids=true, to_apply=%add\n"
        "}\n"
    ).collectives()
    assert found.groups == groups


def test_groups_of_no_axis_are_not_given_one():
    assert axes_of(((0, 3), (1, 2)), {"data": 2, "fsdp": 2}) == "?"
