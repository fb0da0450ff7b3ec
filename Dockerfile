# The app for the public, on CPU: docker build -t latentomni . && docker run -p 7860:7860 -v latentomni:/data latentomni
# docs/OPERATION.md lists every setting. --build-arg TORCH_INDEX=... takes torch from an index of PyTorch: of its CPU wheels for an image that is
# some GB smaller.
FROM python:3.11-slim

ARG TORCH_INDEX=""
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

RUN useradd --create-home --uid 1000 latentomni && mkdir /data && chown latentomni /data
WORKDIR /home/latentomni/app

COPY requirements.txt ./
RUN grep '^torch>' requirements.txt > torch.txt && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt && pip install -r requirements.txt

COPY app.py ./
COPY app ./app
COPY latentomni ./latentomni
COPY visualizers ./visualizers
COPY examples ./examples

USER latentomni
ENV LATENTOMNI_HOST=0.0.0.0 LATENTOMNI_PORT=7860 LATENTOMNI_CACHE=/data LATENTOMNI_LOG=json LATENTOMNI_PUBLIC=1 \
    GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1
VOLUME /data
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
CMD ["python", "app.py"]
