// The page: asks for speech, and lets it be heard while it comes.

import { Player, Waveform } from "/player.js";
import { canRecord, record } from "/recorder.js";
import { joined, samplesOf, samplesOfRecording, wavFile } from "/wav.js";

const part = (id) => document.getElementById(id);
const waveform = new Waveform(part("waveform"));
const limits = await (await fetch("/health")).json();
let prompt = null;
let speaking = null;
let endRecording = null;

part("seconds").max = limits.max_seconds;
part("seconds").value = Math.min(part("seconds").value, limits.max_seconds);
part("record").disabled = !canRecord;

function say(text, isError = false) {
  part("status").textContent = text;
  part("status").classList.toggle("error", isError);
}

function notePrompt(text, isError = false) {
  part("prompt-note").textContent = text;
  part("prompt-note").classList.toggle("error", isError);
}

/** Takes a recording as the prompt; null: none. */
async function choosePrompt(blob, name) {
  prompt = null;
  notePrompt("None: speech begins from nothing.");
  if (blob) {
    try {
      const samples = await samplesOfRecording(blob, limits.sample_rate, limits.max_prompt_seconds);
      prompt = wavFile(samples, limits.sample_rate);
      notePrompt(`${name}, ${(samples.length / limits.sample_rate).toFixed(1)} s.`);
    } catch {
      notePrompt(`${name} is nothing that this browser can play; choose a WAV, FLAC, Ogg or MP3 file.`, true);
    }
  }
  if (part("prompt-player").src) URL.revokeObjectURL(part("prompt-player").src);
  if (prompt) part("prompt-player").src = URL.createObjectURL(prompt);
  else part("prompt-player").removeAttribute("src");
  for (const id of ["prompt-player", "clear"]) part(id).hidden = !prompt;
  part("echo").disabled = !prompt;
}

async function toggleRecording() {
  const button = part("record");
  if (endRecording) {
    const end = endRecording;
    endRecording = null;
    button.textContent = "Record";
    button.setAttribute("aria-pressed", "false");
    await choosePrompt(await end(), "Your recording");
    return;
  }
  try {
    endRecording = await record();
  } catch {
    notePrompt("The browser was not given a microphone; allow it, or choose a file.", true);
    return;
  }
  button.textContent = "Stop recording";
  button.setAttribute("aria-pressed", "true");
  notePrompt("Recording …");
}

function ask(seconds, seed, signal) {
  if (!prompt) {
    const body = JSON.stringify(seed === "" ? { seconds } : { seconds, seed: Number(seed) });
    return fetch("/v1/audio/speech", { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
  }
  const fields = new URLSearchParams({ seconds, echo: part("echo").checked, ...(seed === "" ? {} : { seed }) });
  return fetch(`/v1/audio/speech?${fields}`, { method: "POST", headers: { "Content-Type": "audio/wav" }, body: prompt, signal });
}

/** Speaks once: plays and draws what comes, and lists it when it is over. */
async function speak() {
  const [seconds, seed] = [part("seconds").valueAsNumber, part("seed").value];
  const abort = new AbortController();
  const player = new Player(limits.sample_rate);
  const parts = [];
  const begin = performance.now();
  const times = {};
  speaking = { abort, player };
  part("stop").disabled = false;
  part("speak").disabled = true;
  const nEchoed = prompt && part("echo").checked ? (prompt.size - 44) / 2 : 0;
  waveform.clear(Math.ceil(seconds * limits.sample_rate + nEchoed));
  say("Waiting for the first sound …");
  const follow = setInterval(() => waveform.moveTo(player.nHeard), 40);
  try {
    const response = await ask(seconds, seed, abort.signal);
    if (!response.ok) throw new Error((await response.json()).error.message);
    times.seed = response.headers.get("x-seed");
    for await (const samples of samplesOf(response.body)) {
      times.first ??= (performance.now() - begin) / 1000;
      player.play(samples);
      parts.push(samples);
      waveform.add(samples);
      say(`Speaking: ${(player.nSamples / limits.sample_rate).toFixed(1)} s so far, the first after ${times.first.toFixed(2)} s.`);
    }
    times.all = (performance.now() - begin) / 1000;
    while (player.isPlaying && !abort.signal.aborted) await new Promise((resolve) => setTimeout(resolve, 50));
    if (abort.signal.aborted) say("Stopped.");
    else tell(times, player);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error instanceof TypeError ? "The server cannot be reached; is it still running?" : error.message, true);
  } finally {
    clearInterval(follow);
    waveform.moveTo(null);
    await player.stop();
    speaking = null;
    part("stop").disabled = true;
    part("speak").disabled = false;
  }
  if (parts.length) list(joined(parts), times);
}

function tell(times, player) {
  const spoken = player.nSamples / limits.sample_rate;
  if (!spoken) {
    say("The model ended its utterance at once; another seed may say more.");
    return;
  }
  const gaps = player.nGaps ? `, ${player.nGaps} gaps` : "";
  say(`${spoken.toFixed(1)} s of speech, the first after ${times.first.toFixed(2)} s, all in ${times.all.toFixed(2)} s${gaps}.`);
}

function list(samples, times) {
  const [item, row, words, link, audio] = ["li", "div", "span", "a", "audio"].map((name) => document.createElement(name));
  const address = URL.createObjectURL(wavFile(samples, limits.sample_rate));
  row.className = "row";
  words.textContent = `Seed ${times.seed}, ${(samples.length / limits.sample_rate).toFixed(1)} s`;
  Object.assign(link, { href: address, download: `melisma-${times.seed}.wav`, textContent: "Save as WAV" });
  Object.assign(audio, { src: address, controls: true });
  row.append(words, link);
  item.append(row, audio);
  part("takes").prepend(item);
}

function stop() {
  speaking?.abort.abort();
}

part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!speaking) speak();
});
part("stop").addEventListener("click", stop);
part("record").addEventListener("click", toggleRecording);
part("clear").addEventListener("click", () => {
  part("file").value = "";
  choosePrompt(null);
});
part("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  choosePrompt(file ?? null, file?.name);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
document.body.dataset.ready = "true";
