"""PyTorch's times for the work of `roofline --device cuda`: the peers of its rows, in its JSON.

Usage: python3 peers.py [--json OUT] [--tiny] [--repeats N]        needs torch with CUDA; run on the same GPU, in the same minutes

Times are those of events around one call, the best of several after two that are not counted, as roofline's. `_tf32` and `_bf16` rows compute in that
precision. The file is written after each row: a run that is cut off leaves what it has found. Covariances are X^T X by a matrix product; convolutions unfold, then the same; batched inverses are a Cholesky factor and its inverse, or torch.linalg.inv,
whichever is faster.
"""
import argparse
import json
import os
import sys

import torch
import torch.nn.functional as F

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--json", help="write the rows here")
arguments.add_argument("--tiny", action="store_true", help="shapes that take no time")
arguments.add_argument("--repeats", type=int, default=15)
arguments = arguments.parse_args()

if not torch.cuda.is_available():
    sys.exit("peers: torch finds no CUDA device")
device = torch.device("cuda")
rows = []


def best(work):
    """Seconds of the fastest of several calls."""
    for _ in range(2):
        work()
    times = []
    for _ in range(arguments.repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return min(times)


def save():
    if arguments.json:
        report = dict(torch=torch.__version__, device=torch.cuda.get_device_name(), threads=1, rows=rows)
        with open(arguments.json + ".unfinished", "w") as file:
            json.dump(report, file, indent=1)
        os.replace(arguments.json + ".unfinished", arguments.json)


def row(kernels, shape, flops, work, peer="pytorch"):
    """Times `work`, the peer of several kernels; what PyTorch cannot do, or has no memory for, is said and left out."""
    try:
        seconds = best(work)
    except RuntimeError as error:  # OutOfMemoryError is one
        print(f"{kernels[0]} {shape} {peer}: {str(error).splitlines()[0]}", flush=True)
        torch.cuda.empty_cache()
        return
    for kernel in kernels:
        rows.append(dict(kernel=kernel, shape=shape, peer=peer, seconds=seconds, gflops=flops / seconds / 1e9))
        print(f"{kernel:28s} {shape:34s} {peer:18s} {seconds * 1e3:10.4f} ms {flops / seconds / 1e9:10.1f} GFLOP/s", flush=True)
    save()


def normals(*shape):
    return torch.randn(*shape, device=device)


def precisions():
    """Suffix of the kernel's name, and the type of the operands."""
    for suffix, tf32, kind in (("", False, torch.float32), ("_tf32", True, torch.float32), ("_bf16", False, torch.bfloat16)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        yield suffix, kind
    torch.backends.cuda.matmul.allow_tf32 = False


def covariance(n, d):
    x = normals(n, d)
    for suffix, kind in precisions():
        y = x.to(kind)
        kernels = ["covariance" + suffix, "covariance_lower" + suffix]
        if not suffix:
            kernels += ["covariance_fma", "covariance_lower_fma"]
        row(kernels, f"N={n} d={d}", n * d * d, lambda: y.T @ y)


def conv_covariance(n, c, h, k, p, s=1, groups=1):
    x = normals(n, c, h, h)
    name = f"N={n} C={c} H={h} k={k} p={p}" + (f" s={s}" if s > 1 else "") + (f" g={groups}" if groups > 1 else "")
    features = c // groups * k * k
    positions = ((h + 2 * p - k) // s + 1) ** 2
    flops = n * positions * groups * features**2
    for suffix, kind in precisions():
        y = x.to(kind)

        def work():
            unfolded = F.unfold(y, k, padding=p, stride=s)  # [n, c k k, positions]
            by_group = unfolded.reshape(n, groups, features, -1).permute(1, 2, 0, 3).reshape(groups, features, -1)
            return by_group @ by_group.mT

        row(["conv_covariance" + suffix, "conv_covariance_full" + suffix], name, flops, work)


def batched_inverse(batch, n):
    a = normals(batch, n, n)
    a = a @ a.mT / n + 0.1 * torch.eye(n, device=device)
    shape, flops = f"batch={batch} n={n}", batch * n**3
    kernels = ["damped_inverse_batched", "damped_inverse_batched_block"]
    row(kernels, shape, flops, lambda: torch.cholesky_inverse(torch.linalg.cholesky(a)), "pytorch cholesky")
    row(kernels, shape, flops, lambda: torch.linalg.inv(a), "pytorch inv")


if arguments.tiny:
    covariance(5, 9)
    conv_covariance(2, 3, 5, 3, 1)
    batched_inverse(3, 5)
else:
    for shape in ((100, 784), (100, 1000), (1000, 1000), (4096, 1024), (4096, 2048)):
        covariance(*shape)
    # The shapes of examples/roofline/jobs.rs.
    for shape in (
        (32, 3, 32, 3, 1), (32, 64, 32, 3, 1), (32, 128, 16, 3, 1), (32, 256, 8, 3, 1), (32, 512, 4, 3, 1), (32, 16, 28, 5, 2),
        (8, 64, 56, 3, 1), (8, 3, 224, 7, 3), (8, 64, 56, 3, 1, 2), (8, 128, 28, 3, 1, 2), (8, 3, 224, 7, 3, 2),
        (8, 128, 28, 3, 1, 1, 128), (8, 256, 28, 1, 0), (8, 256, 28, 1, 0, 2),
    ):
        conv_covariance(*shape)
    for shape in ((4096, 8), (4096, 16), (1024, 32), (256, 64), (64, 128), (16, 256)):
        batched_inverse(*shape)

if not rows:
    sys.exit("peers: nothing could be measured")
