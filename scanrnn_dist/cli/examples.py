"""Examples for the help of each command: what one wants, and the command that does it."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "inspect": (
        ("What does this data set hold?", "scanrnn inspect recordings/"),
        (
            "Measure every feature, and write a file for --input",
            "scanrnn inspect recordings/ --statistics \\\n   --output input.toml",
        ),
    ),
    "demo": (
        ("Try everything on made-up sensor data", "scanrnn demo"),
        ("The same, smaller and elsewhere", "scanrnn demo --folder trial --rows 300"),
    ),
    "plan": (
        ("Would this work, and how long would it take?", "scanrnn plan recordings/ features/ --hidden 64"),
        ("Look at every row of the source first", "scanrnn plan recordings/ --hidden 64 --scan"),
    ),
    "featurize": (
        (
            "64 features for each row, by a GRU with random weights",
            "scanrnn featurize recordings/ features/ --hidden 64",
        ),
        (
            "Your own weights, and all flags in a file",
            "scanrnn featurize recordings/ features/ \\\n   --encoder encoder.safetensors --config job.toml",
        ),
    ),
    "resume": (
        ("Continue a job whose command is lost", "scanrnn resume features/"),
        ("The same, after an update of JAX", "scanrnn resume features/ --allow-mixed"),
    ),
    "update": (
        ("Add the steps of today", "scanrnn update features/ new_steps/"),
        ("The rows are told apart by two columns", "scanrnn update features/ new_steps/ --ids client,device"),
    ),
    "bench": (
        ("How fast is this machine?", "scanrnn bench recordings/ --hidden 64"),
        ("Which flags make it fastest here?", "scanrnn bench recordings/ --hidden 64 --tune"),
    ),
    "verify": (
        ("Is the output as it was written, and right?", "scanrnn verify features/"),
        ("Compare hashes only, and rewrite damaged parts", "scanrnn verify features/ --sample 0 --repair"),
    ),
    "status": (
        ("How far is the job?", "scanrnn status features/"),
        ("The same for a program", "scanrnn status features/ --json"),
    ),
    "report": (
        ("A page about a job, to look at and to send", "scanrnn report features/"),
        (
            "Colour the rows by a column that was kept",
            "scanrnn report features/ --colour label \\\n   --output page.html",
        ),
    ),
    "export": (
        ("All features as one array for numpy", "scanrnn export features/ features.npy"),
        ("The same, and the result as JSON", "scanrnn export features/ features.npy --json"),
    ),
    "clean": (
        ("What would be removed?", "scanrnn clean features/ --dry-run"),
        ("Remove what crashed runs left", "scanrnn clean features/"),
    ),
    "encoder make": (
        (
            "A GRU with random weights, for steps of 12 numbers",
            "scanrnn encoder make gru.safetensors \\\n   --in-features 12 --hidden 64",
        ),
        (
            "Two layers, both directions",
            "scanrnn encoder make deep.safetensors \\\n   --in-features 12 --hidden 64 \\\n"
            "   --num-layers 2 --bidirectional",
        ),
    ),
    "encoder convert": (
        (
            "Weights of PyTorch",
            "scanrnn encoder convert model.safetensors \\\n   encoder.safetensors --from torch",
        ),
        (
            "Weights of Keras, of one layer",
            "scanrnn encoder convert model.weights.h5 \\\n   encoder.safetensors --from keras",
        ),
    ),
    "encoder inspect": (
        ("What is in this file?", "scanrnn encoder inspect encoder.safetensors"),
        ("The same for a program", "scanrnn encoder inspect encoder.safetensors --json"),
    ),
}
"""By the words that call the command. Lines stay below 60 columns."""
