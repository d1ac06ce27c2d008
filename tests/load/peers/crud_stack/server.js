// The check-in as a synchronous CRUD service does it: verify the token, check the body, three inserts in one
// transaction, commit, emit, answer. One process. Reads its settings from the environment, prints its port when ready.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import express from "express";
import jwt from "jsonwebtoken";
import pg from "pg";
import { Server } from "socket.io";

const SECRET = process.env.CRUD_STACK_SECRET;
const PRIORITIES = new Set(["routine", "urgent", "asap", "stat"]);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const pool = new pg.Pool({
  connectionString: process.env.CRUD_STACK_POSTGRES_URL,
  max: Number(process.env.CRUD_STACK_POOL ?? 10),
});
const app = express();
const http = createServer(app);
const io = new Server(http);

io.on("connection", (socket) => socket.on("join", (unit) => socket.join(`unit-${unit}`)));

app.use(express.json());

function authenticate(req, res, next) {
  const [scheme, token] = (req.headers.authorization ?? "").split(" ");
  if (scheme !== "Bearer" || !token) return res.status(401).json({ error: "no token" });
  try {
    req.user = jwt.verify(token, SECRET, { algorithms: ["HS256"] });
  } catch {
    return res.status(401).json({ error: "invalid token" });
  }
  next();
}

function problemOf({ patientId, department, priority, reason }) {
  if (typeof patientId !== "string" || !UUID.test(patientId)) return "patientId";
  if (typeof department !== "string" || !department || department.length > 40) return "department";
  if (!PRIORITIES.has(priority)) return "priority";
  if (reason !== undefined && (typeof reason !== "string" || reason.length > 500)) return "reason";
  return null;
}

app.post("/api/check-in", authenticate, async (req, res) => {
  const problem = problemOf(req.body ?? {});
  if (problem) return res.status(400).json({ error: `invalid ${problem}` });
  if (req.user.role !== "receptionist" && req.user.role !== "admin") return res.status(403).json({ error: "forbidden" });
  const { patientId, department, priority, reason } = req.body;
  const unit = req.user.unit;
  const encounterId = randomUUID();
  const queueEntryId = randomUUID();
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query(
      "INSERT INTO encounters (id, unit_id, patient_id, department, reason, created_by) VALUES ($1, $2, $3, $4, $5, $6)",
      [encounterId, unit, patientId, department, reason, req.user.sub],
    );
    await client.query(
      "INSERT INTO queue_entries (id, encounter_id, unit_id, department, priority) VALUES ($1, $2, $3, $4, $5)",
      [queueEntryId, encounterId, unit, department, priority],
    );
    await client.query(
      "INSERT INTO notifications (encounter_id, unit_id, kind) VALUES ($1, $2, $3)",
      [encounterId, unit, "patient-arrived"],
    );
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    console.error(error.code ?? "error");
    return res.status(500).json({ error: "internal" });
  } finally {
    client.release();
  }
  io.to(`unit-${unit}`).emit("patient-arrived", { encounterId, queueEntryId, patientId, department, priority });
  res.status(201).json({ encounterId, queueEntryId });
});

app.get("/health", (req, res) => res.json({ status: "ok" }));

http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: http.address().port })));
process.on("SIGTERM", () => {
  io.close();
  http.closeAllConnections();
  pool.end().finally(() => process.exit(0));
});
