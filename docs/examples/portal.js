// A portal in the browser: connects, resumes where it stood, answers pings, renews its token, sends commands, and falls
// back to Server-Sent Events where WebSockets do not get through. No dependencies. docs/portals.md tells the protocol.

const SUBPROTOCOL = "carespine.portal.v1";
const LONGEST_PAUSE = 30_000;

export class Portal {
  // socketUrl: wss://…/portal · streamUrl: https://…/api/stream (same origin, or allowed by your proxy)
  // token: async () => a token that is good for some minutes · on: {event, state, reset}
  constructor({ socketUrl, streamUrl, token, topics, departments, unitId, on }) {
    Object.assign(this, { socketUrl, streamUrl, token, topics, departments, unitId, on });
    this.position = null; // of the newest frame that carried one: where to resume from
    this.failures = 0;
    this.asked = new Map(); // requestId -> {resolve, reject}
    this.stopped = false;
  }

  async start() {
    while (!this.stopped) {
      const overStream = this.streamUrl && this.failures >= 3 && this.failures % 2 === 1;
      const end = await (overStream ? this.#stream() : this.#socket()).catch(() => ({ mayReconnect: true }));
      for (const { reject } of this.asked.values()) reject(new Error("connection lost: repeat with the same key"));
      this.asked.clear();
      if (end.mayReconnect === false) return this.on.state?.("closed", end);
      this.on.state?.("away", end);
      const ceiling = Math.min(LONGEST_PAUSE, 500 * 2 ** this.failures++);
      await pause(end.retryAfterSeconds ? end.retryAfterSeconds * 1000 : Math.random() * ceiling);
    }
  }

  stop() {
    this.stopped = true;
    this.socket?.close();
    this.abort?.abort();
  }

  // queue-update or patient-status-update; resolves with the outcome, rejects when it was not taken. The key makes a
  // repeat after a lost connection harmless.
  command(type, action, payload, idempotencyKey = crypto.randomUUID()) {
    if (this.socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("no socket: use HTTP"));
    const requestId = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      this.asked.set(requestId, { resolve, reject });
      this.#say({ type, requestId, action, payload, idempotencyKey });
    });
  }

  async #socket() {
    const token = await this.token();
    // A browser cannot set headers here, and a URL ends up in logs: the token goes as a second subprotocol.
    const socket = (this.socket = new WebSocket(this.socketUrl, [SUBPROTOCOL, `bearer.${token}`]));
    let bye = {};
    let silence;
    let renewal;
    return new Promise((resolve) => {
      socket.onopen = () => {
        const hello = { type: "hello", topics: this.topics };
        if (this.unitId) hello.unitId = this.unitId;
        if (this.departments) hello.departments = this.departments;
        if (this.position !== null) hello.position = this.position;
        this.#say(hello);
      };
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        clearTimeout(silence); // a browser does not notice a dead connection; pings come every 20 seconds
        silence = setTimeout(() => socket.close(), 50_000);
        if (frame.type === "bye") bye = frame;
        if (frame.type === "ping") this.#say({ type: "pong" });
        if (frame.type === "welcome" || frame.type === "renewed") {
          clearTimeout(renewal);
          renewal = setTimeout(
            async () => this.#say({ type: "renew", token: await this.token() }),
            ((Date.parse(frame.expiresAt) - Date.now()) * 2) / 3,
          );
        }
        this.#take(frame);
      };
      socket.onclose = ({ code }) => {
        clearTimeout(silence);
        clearTimeout(renewal);
        resolve({ code, ...bye });
      };
    });
  }

  async #stream() {
    // fetch and not EventSource, which cannot send the token as a header. The stream ends with the token.
    this.abort = new AbortController();
    const query = new URLSearchParams({ topics: this.topics.join(",") });
    if (this.unitId) query.set("unit", this.unitId);
    if (this.departments) query.set("departments", this.departments.join(","));
    const headers = { Authorization: `Bearer ${await this.token()}` };
    if (this.position !== null) headers["Last-Event-ID"] = String(this.position);
    const answer = await fetch(`${this.streamUrl}?${query}`, { headers, signal: this.abort.signal });
    if (!answer.ok) return { code: answer.status, mayReconnect: answer.status >= 500 || answer.status === 401 };
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let bye = {};
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return bye;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
        if (fields.data) {
          const frame = { type: fields.event, ...JSON.parse(fields.data) };
          if (frame.type === "bye") bye = frame;
          this.#take(frame);
        }
        if (fields.id) this.position = Number(fields.id);
      }
    }
  }

  #take(frame) {
    switch (frame.type) {
      case "welcome":
        this.failures = 0;
        if (this.position === null) this.position = frame.position;
        this.on.state?.("live", frame);
        break;
      case "reset": // too much was missed: read over HTTP what is shown, then go on
        this.position = frame.position;
        this.on.reset?.(frame);
        break;
      case "event":
        this.position = frame.position;
        this.on.event?.(frame);
        break;
      case "ping":
      case "subscribed":
        if (frame.position !== undefined) this.position = frame.position;
        break;
      case "outcome":
        if (frame.status !== "pending") {
          this.asked.get(frame.requestId)?.resolve(frame);
          this.asked.delete(frame.requestId);
        }
        break;
      case "declined":
        this.asked.get(frame.requestId)?.reject(Object.assign(new Error(frame.detail), { code: frame.code }));
        this.asked.delete(frame.requestId);
        break;
    }
  }

  #say(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
