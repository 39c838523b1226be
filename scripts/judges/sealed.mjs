// Encrypted credential requests and responses (OpenID4VCI 1.0 §10) by jose, for
// a wallet library that leaves them to its fetch callback.
import { CompactEncrypt, compactDecrypt, exportJWK, generateKeyPair, importJWK } from 'jose'

export class Sealing {
  #alg
  #enc
  #keys

  constructor(method) {
    [this.#alg, this.#enc] = method.split(':')
  }

  // parameters are credential_response_encryption. alg stands in the jwk, and
  // beside it, where the drafts had it and the library wants it still.
  async parameters() {
    this.#keys = await generateKeyPair(this.#alg, { crv: 'P-256' })
    const { kty, crv, x, y } = await exportJWK(this.#keys.publicKey)
    return { jwk: { kty, crv, x, y, alg: this.#alg, use: 'enc' }, alg: this.#alg, enc: this.#enc }
  }

  // fetch encrypts the body, where the metadata has keys for it (no draft's has),
  // and decrypts what comes back. A success in plain JSON is made an error; an
  // error must be plain.
  async fetch(metadata, url, init) {
    const jwk = metadata.credential_request_encryption?.jwks.keys.find((key) => key.alg === this.#alg)
    const response = await fetch(url, jwk ? await this.#seal(jwk, init) : init)
    if (!response.ok) return response
    if (response.headers.get('Content-Type') !== 'application/jwt') throw new Error('the response is not encrypted')
    const { plaintext, protectedHeader } = await compactDecrypt(await response.text(), this.#keys.privateKey)
    if (protectedHeader.alg !== this.#alg || protectedHeader.enc !== this.#enc) throw new Error(`the response is encrypted with ${JSON.stringify(protectedHeader)}`)
    return new Response(plaintext, { status: response.status, headers: { 'Content-Type': 'application/json' } })
  }

  async #seal(jwk, init) {
    const body = await new CompactEncrypt(new TextEncoder().encode(init.body))
      .setProtectedHeader({ alg: jwk.alg, enc: this.#enc, kid: jwk.kid })
      .encrypt(await importJWK(jwk, jwk.alg))
    return { ...init, headers: { ...init.headers, 'Content-Type': 'application/jwt' }, body }
  }
}
