"""Called by meson as embed.py OUTPUT ROOT NAME...: writes C with the text of each header, by its name as included."""

import pathlib
import sys

output, root, names = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
lines = ['/* Made by embed.py. */', '#include "gpu/compile.h"', '']
for number, name in enumerate(names):
    data = (root / name).read_bytes() + b'\0'
    lines.append(f'static const char text_{number}[] = {{')
    lines += [f'    {", ".join(str(byte) for byte in data[i:i + 24])},' for i in range(0, len(data), 24)]
    lines.append('};')
lines.append('const gpu_text gpu__texts[] = {')
lines += [f'    {{ "{name}", text_{number} }},' for number, name in enumerate(names)]
lines += ['};', f'const int gpu__n_texts = {len(names)};', '']
pathlib.Path(output).write_text('\n'.join(lines), encoding='ascii')
