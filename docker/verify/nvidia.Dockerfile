# Stands in for nvcr.io/nvidia/tritonserver where that cannot be had: the tritonserver of the PyPI wheel in the places of
# NVIDIA's image, with its entry point, its user, NumPy and pip. It has no GPU, no backend but Python's, and an old Triton.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN useradd --create-home --uid 1000 triton-server \
    && python3 -m pip download --no-cache-dir --no-deps --dest /tmp/wheel nvidia-pytriton==0.7.0 \
    && python3 -m pip install --no-cache-dir --break-system-packages numpy==1.26.4 \
    && python3 -m zipfile -e /tmp/wheel/*.whl /tmp/wheel/files \
    && cd /tmp/wheel/files/pytriton/tritonserver \
    && mkdir -p /opt/tritonserver \
    && mv bin backends caches /opt/tritonserver/ \
    && mv ../../nvidia_pytriton.libs /opt/tritonserver/lib \
    && mv "python_backend_stubs/$(python3 -c 'import sys; print("{}.{}".format(*sys.version_info))')"/* /opt/tritonserver/backends/python/ \
    && chmod 755 /opt/tritonserver/bin/tritonserver /opt/tritonserver/backends/python/triton_python_backend_stub \
    && rm -r /tmp/wheel \
    && mkdir -p /opt/nvidia \
    && printf '#!/bin/bash\necho "=== stand-in of NVIDIA'"'"'s image ==="\nexec "$@"\n' > /opt/nvidia/nvidia_entrypoint.sh \
    && chmod 755 /opt/nvidia/nvidia_entrypoint.sh
ENV PATH=/opt/tritonserver/bin:$PATH LD_LIBRARY_PATH=/opt/tritonserver/lib PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /opt/tritonserver
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
