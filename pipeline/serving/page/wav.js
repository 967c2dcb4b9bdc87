// Samples and bytes: what the server streams, and the recordings that it is sent.

const HEADER_BYTES = 44;

/** Yields Float32Arrays of samples as the bytes of a 16-bit WAV stream arrive. */
export async function* samplesOf(stream) {
  const reader = stream.getReader();
  let toSkip = HEADER_BYTES;
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    const begin = Math.min(toSkip, bytes.length);
    toSkip -= begin;
    const whole = (bytes.length - begin) >> 1;
    rest = bytes.slice(begin + 2 * whole);
    if (!whole) continue;
    const view = new DataView(bytes.buffer, begin, 2 * whole);
    yield Float32Array.from({ length: whole }, (_, index) => view.getInt16(2 * index, true) / 32768);
  }
}

/** A WAV file of samples, mono, 16 bits. */
export function wavFile(samples, sampleRate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + 2 * samples.length));
  const text = (offset, word) => [...word].forEach((letter, index) => view.setUint8(offset + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => {
    const level = Math.round(32768 * sample);
    view.setInt16(HEADER_BYTES + 2 * index, Math.max(-32768, Math.min(32767, level)), true);
  });
  return new Blob([view.buffer], { type: "audio/wav" });
}

/** The samples of a recording of any kind that the browser decodes, mono, at a sample rate; the last seconds of it. */
export async function samplesOfRecording(blob, sampleRate, maxSeconds) {
  const decoder = new OfflineAudioContext(1, 1, sampleRate);
  const buffer = await decoder.decodeAudioData(await blob.arrayBuffer());
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    buffer.getChannelData(channel).forEach((sample, index) => { mono[index] += sample / buffer.numberOfChannels; });
  }
  return mono.slice(-Math.floor(maxSeconds * sampleRate));
}

/** All parts, one after the other. */
export function joined(parts) {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
