// A wallet on @openid4vc/openid4vci. What the library leaves to callbacks is
// done by jose.
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { clientAuthenticationClientAttestationJwt, preAuthorizedCodeGrantIdentifier, resourceRequest } from '@openid4vc/oauth2'
import { Openid4vciClient, Openid4vciWalletProvider, extractScopesForCredentialConfigurationIds } from '@openid4vc/openid4vci'
import { compactVerify, importJWK } from 'jose'
import { certify, challengedPoP, clientAssertion, did, keyAttestation, newKey, readAttester, readClient, sign, walletID } from './holder.mjs'
import { Sealing } from './sealed.mjs'
import { anchors, publicJwk, verifyChain } from './x509.mjs'

// variants are what --with may name.
export const variants = [
  'appended-path', 'attestation', 'attestation-proof', 'challenge', 'deferred', 'details', 'dpop', 'key-attestation', 'notification',
  'private-key-jwt', 'refresh', 'retry', 'scope', 'signed-metadata', 'unbound',
]

const issuerPath = '/.well-known/openid-credential-issuer'

class Wallet {
  constructor(checks, options) {
    this.checks = checks
    this.options = options
    this.with = options.with
    this.known = new Map() // the keys, by what a signer of the library's names them
    if (options.attester) this.attester = readAttester(options.attester)
    if (options.encryption) this.sealing = new Sealing(options.encryption)
    this.callbacks = {
      fetch: (url, init) => this.fetch(String(url), init),
      hash: (data, algorithm) => createHash(algorithm.replace('-', '')).update(data).digest(),
      generateRandom: (length) => randomBytes(length),
      clientAuthentication: (request) => this.authenticate(request),
      signJwt: (signer, jwt) => this.signJwt(signer, jwt),
      ...(this.with.has('signed-metadata') && { verifyJwt: (signer, jwt) => this.verifyJwt(signer, jwt) }),
    }
    this.client = new Openid4vciClient({ callbacks: this.callbacks })
    this.provider = new Openid4vciWalletProvider({ callbacks: this.callbacks })
  }

  // key makes a key that signJwt finds again.
  async key(alg) {
    const key = await newKey(alg)
    for (const name of [key.publicJwk.x, did(key)]) this.known.set(name, key)
    return key
  }

  async signJwt(signer, { header, payload }) {
    const key = this.known.get(signer.publicJwk?.x ?? signer.didUrl ?? signer.x5c?.[0])
    return { jwt: await sign(key, header, payload), signerJwk: key.publicJwk }
  }

  // verifyJwt judges the signed metadata's chain and signature.
  async verifyJwt(signer, { header, compact }) {
    const leaf = await verifyChain(signer.x5c.map((c) => Buffer.from(c, 'base64')), anchors(this.options.iacaBytes))
    const signerJwk = await publicJwk(leaf)
    await compactVerify(compact, await importJWK(signerJwk, header.alg))
    return { verified: true, signerJwk }
  }

  async fetch(url, init) {
    if (new URL(url).pathname.startsWith(issuerPath)) {
      // A wallet of an older draft knows the appended path alone.
      if (this.with.has('appended-path')) return new Response(null, { status: 404 })
      if (this.with.has('signed-metadata')) init = { ...init, headers: { Accept: 'application/jwt' } }
    }
    const issuer = this.metadata?.credentialIssuer ?? {}
    const protectedURL = url === issuer.credential_endpoint || url === issuer.deferred_credential_endpoint
    const response = this.sealing && protectedURL ? await this.sealing.fetch(issuer, url, init) : await fetch(url, init)
    return url === issuer.deferred_credential_endpoint ? this.withoutNotification(response) : response
  }

  // withoutNotification takes notification_id from a deferred response: the
  // library refuses it beside credentials, where OpenID4VCI 1.0 §9.2 has it.
  async withoutNotification(response) {
    if (!response.ok) return response
    const { notification_id: id, ...body } = await response.json()
    this.notification = id
    return new Response(JSON.stringify(body), { status: response.status, headers: { 'Content-Type': 'application/json' } })
  }

  async authenticate(request) {
    const audience = request.authorizationServerMetadata.issuer
    if (this.with.has('private-key-jwt')) {
      this.registered ??= await readClient(this.options['client-id'], this.options['client-key'])
      request.body.client_id = this.registered.id
      request.body.client_assertion_type = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
      request.body.client_assertion = await clientAssertion(this.registered, audience)
    }
    if (!this.with.has('attestation')) return
    this.walletAttestation ??= await this.attest()
    await clientAuthenticationClientAttestationJwt({ callbacks: this.callbacks, clientAttestationJwt: this.walletAttestation })(request)
    if (!this.with.has('challenge')) return
    const response = await fetch(request.authorizationServerMetadata.challenge_endpoint, { method: 'POST' })
    const { attestation_challenge: challenge } = await response.json()
    request.headers.set('OAuth-Client-Attestation-PoP', await challengedPoP(this.instance, audience, challenge))
  }

  // attest has the wallet provider vouch for a key of this wallet.
  async attest() {
    this.instance = await this.key()
    this.known.set(this.attester.x5c[0], this.attester)
    return this.provider.createWalletAttestationJwt({
      signer: { method: 'x5c', alg: 'ES256', x5c: this.attester.x5c },
      issuer: 'https://provider.example',
      clientId: walletID,
      confirmation: { jwk: this.instance.publicJwk },
      issuedAt: new Date(),
      expiresAt: new Date(Date.now() + 3600_000),
      walletName: 'Example wallet',
    })
  }

  async resolve() {
    const { checks, options } = this
    this.offer = await this.client.resolveCredentialOffer(options.offer)
    checks.report('openid4vci: credential offer', true, this.offer.credential_issuer)
    this.metadata = await this.client.resolveIssuerMetadata(this.offer.credential_issuer)
    const version = this.metadata.originalDraftVersion
    checks.expect(`openid4vci: issuer metadata is of version ${options.version}`, version === options.version, version)
    checks.expect('openid4vci: metadata is signed, if that was asked for', Boolean(this.metadata.signedCredentialIssuer) === this.with.has('signed-metadata'))
    this.id = this.offer.credential_configuration_ids[0]
    this.configuration = this.metadata.credentialIssuer.credential_configurations_supported[this.id]
    checks.expect('openid4vci: the offered configuration has the expected format', this.configuration?.format === options.format, this.configuration?.format)
    checks.expect('openid4vci: the library knows the configuration', this.metadata.knownCredentialConfigurations[this.id])
    const wantsCode = Boolean(this.offer.grants?.[preAuthorizedCodeGrantIdentifier]?.tx_code)
    checks.expect('openid4vci: tx_code as announced', wantsCode === Boolean(options['tx-code']), `offer wants a code: ${wantsCode}`)
  }

  async authorize() {
    if (this.with.has('dpop')) this.dpop = { signer: { method: 'jwk', alg: 'ES256', publicJwk: (await this.key()).publicJwk } }
    const more = {}
    if (this.with.has('details')) more.authorization_details = [{ type: 'openid_credential', credential_configuration_id: this.id }]
    if (this.with.has('scope')) {
      more.scope = extractScopesForCredentialConfigurationIds({ credentialConfigurationIds: [this.id], issuerMetadata: this.metadata }).join(' ')
    }
    this.take(await this.client.retrievePreAuthorizedCodeAccessTokenFromOffer({
      credentialOffer: this.offer,
      issuerMetadata: this.metadata,
      txCode: this.options['tx-code'],
      additionalRequestPayload: more,
      dpop: this.dpop,
    }))
    if (!this.with.has('details')) return
    this.identifier = this.token.authorization_details?.[0]?.credential_identifiers?.[0]
    this.checks.expect('openid4vci: a credential identifier', this.identifier)
  }

  // take keeps a token response.
  take({ accessTokenResponse, dpop }) {
    this.token = accessTokenResponse
    this.dpop = dpop
    const type = this.dpop ? 'DPoP' : 'Bearer'
    this.checks.expect(`openid4vci: a ${type} token`, this.token.token_type === type, this.token.token_type)
  }

  async nonce() {
    if (!this.metadata.credentialIssuer.nonce_endpoint) return this.token.c_nonce
    return (await this.client.requestNonce({ issuerMetadata: this.metadata })).c_nonce
  }

  async signer(key) {
    const bindings = this.configuration.cryptographic_binding_methods_supported ?? []
    switch (this.options.binding ?? (this.options.format === 'jwt_vc_json' && bindings.includes('did:jwk') ? 'did:jwk' : 'jwk')) {
      case 'did:jwk':
        return { method: 'did', alg: key.alg, didUrl: did(key) }
      case 'x5c': {
        const certificate = await certify(key)
        this.known.set(certificate, key)
        return { method: 'x5c', alg: key.alg, x5c: [certificate] }
      }
      default:
        return { method: 'jwk', alg: key.alg, publicJwk: key.publicJwk }
    }
  }

  // attestKeys vouches for the holder's keys; the library's own attestation has
  // the typ of draft 15, which 1.0 does not know.
  async attestKeys(nonce) {
    if (this.metadata.originalDraftVersion === 'V1') return keyAttestation(this.attester, this.keys, nonce)
    this.known.set(this.attester.x5c[0], this.attester)
    return this.provider.createKeyAttestationJwt({
      use: this.with.has('attestation-proof') ? 'proof_type.attestation' : 'proof_type.jwt',
      signer: { method: 'x5c', alg: 'ES256', x5c: this.attester.x5c },
      issuedAt: new Date(),
      expiresAt: new Date(Date.now() + 3600_000),
      attestedKeys: this.keys.map((key) => key.publicJwk),
      keyStorage: ['iso_18045_high'],
      userAuthentication: ['iso_18045_high'],
      nonce,
    })
  }

  // prove makes the request's proofs for as many keys as --keys says.
  async prove() {
    if (this.with.has('unbound')) {
      this.keys = [undefined]
      return {}
    }
    this.keys = []
    for (let n = 0; n < this.options.keys; n++) this.keys.push(await this.key(this.options.alg))
    const nonce = await this.nonce()
    if (this.with.has('attestation-proof')) return { proofs: { attestation: [await this.attestKeys(nonce)] } }
    const attestation = this.with.has('key-attestation') ? await this.attestKeys(nonce) : undefined
    const jwt = []
    for (const key of attestation ? this.keys.slice(0, 1) : this.keys) {
      const proof = await this.client.createCredentialRequestJwtProof({
        issuerMetadata: this.metadata,
        credentialConfigurationId: this.id,
        nonce,
        signer: await this.signer(key),
        keyAttestationJwt: attestation,
        clientId: this.registered?.id ?? (this.walletAttestation && walletID),
      })
      jwt.push(proof.jwt)
    }
    const single = this.metadata.originalDraftVersion !== 'V1' && jwt.length === 1
    return single ? { proof: { proof_type: 'jwt', jwt: jwt[0] } } : { proofs: { jwt } }
  }

  // request asks for credentials, and waits for them when they are not ready.
  async request(proofs) {
    const additionalRequestPayload = this.sealing && { credential_response_encryption: await this.sealing.parameters() }
    let response
    if (this.identifier) {
      response = await this.requestByIdentifier({ ...additionalRequestPayload, credential_identifier: this.identifier, ...proofs })
    } else {
      const common = { issuerMetadata: this.metadata, accessToken: this.token.access_token, dpop: this.dpop }
      const answer = await this.client.retrieveCredentials({ ...common, credentialConfigurationId: this.id, additionalRequestPayload, ...proofs })
      response = answer.credentialResponse
      this.checks.expect('openid4vci: deferred, if that was expected', Boolean(response.transaction_id) === this.with.has('deferred'))
      while (response.transaction_id) response = await this.again(common, response)
    }
    this.notification = response.notification_id ?? this.notification
    const list = response.credentials ?? [response.credential]
    this.checks.expect('openid4vci: one credential for each key', list.length === this.keys.length, `${list.length} for ${this.keys.length}`)
    return list.map((c, n) => ({ credential: c.credential ?? c, holder: this.keys[n]?.publicJwk }))
  }

  // again waits and asks for what was deferred.
  async again(common, waiting) {
    await sleep(waiting.interval * 1000)
    // The key for the answer is asked for each time (OpenID4VCI 1.0 §9.1).
    const additionalRequestPayload = this.sealing && { credential_response_encryption: await this.sealing.parameters() }
    try {
      const answer = await this.client.retrieveDeferredCredentials({ ...common, transactionId: waiting.transaction_id, additionalRequestPayload })
      return answer.deferredCredentialResponse
    } catch (error) {
      // What "not yet" is in the drafts.
      if (error.response?.deferredCredentialErrorResponseResult?.data?.error === 'issuance_pending') return waiting
      throw error
    }
  }

  // requestByIdentifier: the library's credential request names a configuration
  // always, so this is its request for any resource.
  async requestByIdentifier(body) {
    const answer = await resourceRequest({
      url: this.metadata.credentialIssuer.credential_endpoint,
      accessToken: this.token.access_token,
      dpop: this.dpop,
      callbacks: this.callbacks,
      requestOptions: { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) },
    })
    if (!answer.ok) throw new Error(`by identifier: ${answer.response.status} ${await answer.response.text()}`)
    return answer.response.json()
  }

  async notify() {
    for (const event of ['credential_accepted', 'credential_deleted']) {
      await this.client.sendNotification({
        issuerMetadata: this.metadata,
        notification: { notificationId: this.notification, event, eventDescription: 'as the holder wished' },
        accessToken: this.token.access_token,
        dpop: this.dpop,
      })
      this.checks.report(`openid4vci: notification ${event}`, true)
    }
  }

  async refresh() {
    this.checks.expect('openid4vci: a refresh token', this.token.refresh_token)
    this.take(await this.client.oauth2Client.retrieveRefreshTokenAccessToken({
      authorizationServerMetadata: this.metadata.authorizationServers[0],
      refreshToken: this.token.refresh_token,
      dpop: this.dpop,
    }))
  }
}

// accept takes the offer and returns each credential with the public key it was
// asked for, undefined for one without key binding.
export async function accept(checks, options) {
  const wallet = new Wallet(checks, options)
  await wallet.resolve()
  await wallet.authorize()
  const proofs = await wallet.prove()
  const taken = await wallet.request(proofs)
  if (options.with.has('retry')) taken.push(...(await wallet.request(proofs)))
  if (options.with.has('notification')) await wallet.notify()
  if (options.with.has('refresh')) {
    await wallet.refresh()
    taken.push(...(await wallet.request(await wallet.prove())))
  }
  return taken
}
