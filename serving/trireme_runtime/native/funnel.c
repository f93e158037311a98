/* Compiled by hatch_build.py. What Python calls is visible; everything else stays inside the library. */

/* Raised with every change of what Python calls, together with VERSION in __init__.py. */
__attribute__((visibility("default"))) int trireme_native_version(void) { return 1; }
