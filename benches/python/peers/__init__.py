"""ONNX Runtime as a contestant of the benchmark `compiled`.

| file | content |
| --- | --- |
| `__main__` | the program: requests and responses, as lines of JSON |
| `sessions` | loads models in f32 and in int8 |
| `graph` | writes ONNX graphs as exporters do |
| `minilm`, `random_models` | the models |
"""
