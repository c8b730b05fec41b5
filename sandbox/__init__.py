"""The sandbox: a procedural picture world and the small Flux, text encoders and judges that were made from it.

Nothing imports this package at run time: a sweep sees `sandbox/weights/base` (a diffusers folder),
`sandbox/weights/encoder` (an open_clip folder) and `sandbox/data/*` (folders of pictures with sidecar captions).
The package holds what made them, and the judge that knows the truth about every picture.
"""
