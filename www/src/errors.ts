// Errors that programs can tell apart.

/** What kind of thing went wrong. */
export type ErrorCode =
  /** A model file is not what it should be. */
  | "format"
  /** Bytes could not be read: an address that is not there, a file that is gone, a download that broke off for good. */
  | "io"
  /** The server gives no answer at all: no connection, or it does not let this site read it (CORS). */
  | "network"
  /** A file does not have the SHA-256 that it should have. */
  | "checksum"
  /** The browser has no room to store the model. */
  | "quota"
  /** A model, format or option is known but not supported. */
  | "unsupported"
  /** An argument does not fit. */
  | "invalid"
  /** The prompt is longer than the context. */
  | "context_exceeded"
  /** There is no such device, or it cannot be used. */
  | "device"
  /** The device has no room. */
  | "out_of_memory"
  /** The device was lost. */
  | "device_lost"
  /** A rank is gone. */
  | "communication"
  /** The model gives no numbers. */
  | "numeric"
  | "cancelled"
  /** An answer is being written already, or a stored model that shall be deleted is in use. */
  | "busy"
  /** The model or runtime was closed. */
  | "closed"
  /** The Worker could not start. */
  | "worker"
  /** A bug of ours. */
  | "internal";

/** Every error of this package; its message says in one line what, where, and a way out. */
export class ShardlightError extends Error {
  override readonly name = "ShardlightError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
