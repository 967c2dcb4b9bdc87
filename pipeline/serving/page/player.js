// Plays samples while they still arrive, and draws them.

// Seconds between now and the first sample, and after a gap: what the browser needs to get ready.
const LEAD = 0.05;
// Of a waveform, over its whole width.
const BARS = 600;

/** Plays blocks of samples one after the other, sample by sample; begins anew after a gap. */
export class Player {
  constructor(sampleRate) {
    this.sampleRate = sampleRate;
    this.nSamples = 0;
    this.nGaps = 0;
    this.sources = new Set();
    try {
      // At the stream's own rate, blocks join without a seam; else each would be resampled by itself.
      this.context = new AudioContext({ sampleRate });
    } catch {
      this.context = new AudioContext();
    }
    this.next = 0;
  }

  play(samples) {
    const buffer = this.context.createBuffer(1, samples.length, this.sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    const now = this.context.currentTime * this.sampleRate;
    if (this.next < now) {
      this.nGaps += this.next > 0;
      this.next = Math.ceil(now + LEAD * this.sampleRate);
    }
    source.start(this.next / this.sampleRate);
    this.next += samples.length;
    this.nSamples += samples.length;
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  /** How many samples of those that were given have been heard. */
  get nHeard() {
    const nAhead = Math.max(0, this.next - this.context.currentTime * this.sampleRate);
    return Math.max(0, this.nSamples - nAhead);
  }

  get isPlaying() {
    return this.sources.size > 0;
  }

  stop() {
    this.sources.forEach((source) => source.stop());
    this.sources.clear();
    return this.context.close();
  }
}

/** A waveform that grows, with a line where the sound is. */
export class Waveform {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear(1);
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Begins anew, for so many samples. */
  clear(nSamples) {
    this.nSamples = nSamples;
    this.nDrawn = 0;
    this.peaks = new Float32Array(BARS);
    this.line = null;
    this.draw();
  }

  add(samples) {
    for (const sample of samples) {
      const bar = Math.min(BARS - 1, Math.floor((this.nDrawn / this.nSamples) * BARS));
      this.peaks[bar] = Math.max(this.peaks[bar], Math.abs(sample));
      this.nDrawn += 1;
    }
    this.draw();
  }

  /** Draws the line at a sample; null: none. */
  moveTo(sample) {
    this.line = sample;
    this.draw();
  }

  draw() {
    const scale = devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * scale);
    const height = Math.round(this.canvas.clientHeight * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const colours = getComputedStyle(document.documentElement);
    context.clearRect(0, 0, width, height);
    context.fillStyle = colours.getPropertyValue("--line");
    context.fillRect(0, height / 2, width, 1);
    context.fillStyle = colours.getPropertyValue("--model");
    this.peaks.forEach((peak, bar) => {
      const tall = peak * height * 0.95;
      context.fillRect((bar / BARS) * width, (height - tall) / 2, width / BARS, tall);
    });
    if (this.line !== null) {
      context.fillStyle = colours.getPropertyValue("--ink");
      context.fillRect((this.line / this.nSamples) * width, 0, scale, height);
    }
  }
}
