// What the two wallets on @sphereon/oid4vci-client share.
import { did, newKey, readClient, sign } from './holder.mjs'

// The library writes to the console, where the checks are printed.
console.log = console.warn = console.error = () => {}

// Keys sign what the library makes: proofs and DPoP proofs.
export class Keys {
  constructor(options) {
    this.options = options
    this.byDID = options.binding === 'did:jwk' || options.format === 'jwt_vc_json'
  }

  async make() {
    this.holder = await newKey(this.options.alg)
    this.dpopKey = await newKey()
    return this
  }

  // proofCallbacks sign a key proof.
  get proofCallbacks() {
    return { signCallback: ({ header, payload }) => sign(this.holder, header, payload) }
  }

  // binding names the key in a proof.
  get binding() {
    return this.byDID ? { kid: did(this.holder) } : { jwk: this.holder.publicJwk }
  }

  // dpop are the options by which the library makes DPoP proofs; new ones for
  // each request, as the library writes a nonce into them.
  get dpop() {
    if (!this.options.with.has('dpop')) return undefined
    const key = this.dpopKey
    return {
      jwtIssuer: { alg: key.alg, jwk: key.publicJwk },
      dPoPSigningAlgValuesSupported: [key.alg],
      jwtPayloadProps: {},
      createJwtCallback: (_issuer, { header, payload }) => sign(key, header, payload),
    }
  }

  // authorizationServer are the options by which the library authenticates a
  // registered client.
  async authorizationServer() {
    if (!this.options.with.has('private-key-jwt')) return undefined
    const client = await readClient(this.options['client-id'], this.options['client-key'])
    return {
      clientOpts: {
        clientId: client.id,
        kid: client.kid,
        alg: client.alg,
        clientAssertionType: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        signCallbacks: { signCallback: ({ header, payload }) => sign(client, header, payload) },
      },
    }
  }
}

// notify tells the issuer what became of the credential.
export async function notify(checks, send, metadata, id, accessToken) {
  const endpoint = metadata.notification_endpoint ?? metadata.credentialIssuerMetadata.notification_endpoint
  const result = await send({ notificationEndpoint: endpoint }, { notification_id: id, event: 'credential_accepted' }, accessToken)
  checks.expect('sphereon: notification', !result.error, JSON.stringify(result.response))
}
