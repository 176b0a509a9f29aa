# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
"""
# A stack of a microscope

Counts of a camera from raw frames to a measurement: the noise of the sensor, hot pixels, all planes with one model of
the noise, and the light of a bead before and after. `nlrn denoise stack.tif --noise poisson-gaussian --hot-pixels` does
the same with a file, and keeps the metadata of ImageJ and OME.
"""

# %%
import numpy as np
import torch

import nlrn

GAIN, READ_NOISE, OFFSET = 2.0, 6.0, 100.0
random = np.random.default_rng(0)

# %% [markdown]
"""
A scene whose light is known: beads of 3 pixels on a background of ten electrons, in three planes that fade.
"""

# %%
y, x = np.mgrid[:64, :64]
electrons = np.full((3, 64, 64), 10.0)
for row, column in ((16, 16), (20, 46), (46, 22), (44, 50)):
    bead = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / 3**2)
    electrons += np.array([100.0, 80.0, 60.0])[:, None, None] * bead
counts = OFFSET + GAIN * random.poisson(electrons) + READ_NOISE * random.standard_normal(electrons.shape)
counts[:, 33, 10] += 900  # a hot pixel
counts = counts.round().astype(np.uint16)

# %% [markdown]
"""
The variance of the noise is a straight line over brightness, `gain (x - offset) + read_noise^2`. It follows from the
stack; numbers of a data sheet are better.
"""

# %%
found = nlrn.estimate_noise(torch.from_numpy(counts.astype(np.float32))[:, None], noise="poisson-gaussian")
print(f"gain {found.noise.gain:.2f} +- {found.gain_error:.2f}, which is {GAIN:g}")
sensor = {"noise": "poisson-gaussian", "gain": GAIN, "read_noise": READ_NOISE, "offset": OFFSET}
restored = nlrn.denoise(counts, axes="ZYX", hot_pixels=True, **sensor)

# %% [markdown]
"""
The result is right on average, so that sums stay, and single pixels become usable. `compare` shows a plane.
"""

# %%
inside = (y - 16) ** 2 + (x - 16) ** 2 < 9**2
truth = OFFSET + GAIN * electrons
for plane in range(3):
    light = [((image[plane] - OFFSET) / GAIN)[inside].sum() for image in (truth, counts, restored)]
    print(f"plane {plane}: light of a bead {light[0]:.0f}, counted {light[1]:.0f}, restored {light[2]:.0f}")
errors = [np.median(np.abs(image - truth)) for image in (counts, restored)]
print(f"median error of a pixel: {errors[0]:.1f}, restored {errors[1]:.1f}")
nlrn.compare(counts[0], restored[0], data_range=(OFFSET, float(np.quantile(counts, 0.999))))
