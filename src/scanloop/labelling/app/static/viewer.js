// One image on a canvas: zoom, pan, brightness and contrast (window and level), invert. It knows nothing of tasks.

const FURTHEST = 16;

/** Pixels of an image, decoded ahead so that showing it waits for nothing. */
export async function decode(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

export class Viewer {
  constructor(canvas, onChange = () => {}) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.source = new OffscreenCanvas(1, 1);
    this.pixels = null;
    this.onChange = onChange;
    this.pointers = new Map();
    this.#reset();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#listen();
  }

  get isZoomed() {
    return this.zoom > 1.001;
  }

  /** Show an image, fitted; brightness, contrast and inversion stay as the reader set them. */
  show(pixels) {
    this.pixels = pixels;
    this.zoom = 1;
    this.x = this.y = 0;
    this.#window();
    this.draw();
  }

  fit() {
    this.#reset();
    this.#window();
    this.draw();
  }

  zoomBy(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const before = this.zoom;
    this.zoom = Math.min(FURTHEST, Math.max(1, this.zoom * factor));
    const ratio = this.zoom / before;
    const [middleX, middleY] = [this.canvas.width / 2, this.canvas.height / 2];
    this.x = (this.x + middleX - x) * ratio - middleX + x;
    this.y = (this.y + middleY - y) * ratio - middleY + y;
    this.draw();
  }

  panBy(x, y) {
    this.x += x;
    this.y += y;
    this.draw();
  }

  /** Brightness and contrast, each from -100 to 100. */
  adjust(brightness, contrast) {
    this.brightness = Math.min(100, Math.max(-100, brightness));
    this.contrast = Math.min(100, Math.max(-100, contrast));
    this.#window();
    this.draw();
  }

  invert() {
    this.isInverted = !this.isInverted;
    this.#window();
    this.draw();
  }

  draw() {
    const { context, canvas } = this;
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.pixels) {
      const scale = this.#scale();
      const [width, height] = [this.pixels.width * scale, this.pixels.height * scale];
      const slackX = Math.max(0, (width - canvas.width) / 2);
      const slackY = Math.max(0, (height - canvas.height) / 2);
      this.x = Math.min(slackX, Math.max(-slackX, this.x));
      this.y = Math.min(slackY, Math.max(-slackY, this.y));
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.source, (canvas.width - width) / 2 + this.x, (canvas.height - height) / 2 + this.y, width, height);
    }
    this.onChange(this);
  }

  #scale() {
    return Math.min(this.canvas.width / this.pixels.width, this.canvas.height / this.pixels.height) * this.zoom;
  }

  #reset() {
    this.zoom = 1;
    this.x = this.y = this.brightness = this.contrast = 0;
    this.isInverted = false;
  }

  /** Map the pixels through the window: brightness moves its level, contrast narrows or widens it. */
  #window() {
    if (!this.pixels) return;
    const { width, height, data } = this.pixels;
    if (this.source.width !== width || this.source.height !== height) this.source = new OffscreenCanvas(width, height);
    const context = this.source.getContext("2d");
    if (!this.brightness && !this.contrast && !this.isInverted) {
      context.putImageData(this.pixels, 0, 0);
      return;
    }
    const gain = 4 ** (this.contrast / 100);
    const table = Uint8ClampedArray.from({ length: 256 }, (_, value) => {
      const mapped = (value - 127.5) * gain + 127.5 + this.brightness * 1.275;
      return this.isInverted ? 255 - mapped : mapped;
    });
    const mapped = new ImageData(width, height);
    for (let at = 0; at < data.length; at += 4) {
      mapped.data[at] = table[data[at]];
      mapped.data[at + 1] = table[data[at + 1]];
      mapped.data[at + 2] = table[data[at + 2]];
      mapped.data[at + 3] = 255;
    }
    context.putImageData(mapped, 0, 0);
  }

  #resize() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const [width, height] = [this.canvas.clientWidth * ratio, this.canvas.clientHeight * ratio].map(Math.round);
    if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.draw();
  }

  #at(event) {
    const ratio = this.canvas.width / this.canvas.clientWidth;
    return { x: event.offsetX * ratio, y: event.offsetY * ratio };
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const { x, y } = this.#at(event);
        this.zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, x, y);
      },
      { passive: false },
    );
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, this.#at(event));
    });
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    for (const over of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(over, (event) => this.pointers.delete(event.pointerId));
    }
  }

  #moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#at(event);
    this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
      this.panBy((now.x - before.x) / 2, (now.y - before.y) / 2);
      if (apart(before) > 0) this.zoomBy(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (event.buttons & 2) {
      this.adjust(this.brightness - (now.y - before.y) / 4, this.contrast + (now.x - before.x) / 4);
    } else {
      this.panBy(now.x - before.x, now.y - before.y);
    }
  }
}
