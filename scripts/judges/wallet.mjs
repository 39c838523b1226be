// A wallet on @openid4vc/openid4vci: offer, metadata, token, nonce, credential.
import { createHash, randomBytes } from 'node:crypto'
import { clientAuthenticationAnonymous, preAuthorizedCodeGrantIdentifier } from '@openid4vc/oauth2'
import { Openid4vciClient } from '@openid4vc/openid4vci'
import { SignJWT, exportJWK, generateKeyPair, importJWK } from 'jose'

function callbacks(privateKey, publicJwk) {
  return {
    fetch,
    hash: (data, algorithm) => createHash(algorithm.replace('-', '')).update(data).digest(),
    generateRandom: (length) => randomBytes(length),
    clientAuthentication: clientAuthenticationAnonymous(),
    signJwt: async (_signer, { header, payload }) => ({
      jwt: await new SignJWT(payload).setProtectedHeader(header).sign(privateKey),
      signerJwk: publicJwk,
    }),
  }
}

function proofSigner(binding, publicJwk) {
  if (binding !== 'did:jwk') return { method: 'jwk', alg: 'ES256', publicJwk }
  const did = `did:jwk:${Buffer.from(JSON.stringify(publicJwk)).toString('base64url')}`
  return { method: 'did', alg: 'ES256', didUrl: `${did}#0` }
}

// accept takes the offer and returns the credential with the public key it was asked for.
export async function accept(checks, options) {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  const { kty, crv, x, y } = await exportJWK(publicKey)
  const publicJwk = { kty, crv, x, y }
  const client = new Openid4vciClient({ callbacks: callbacks(privateKey, publicJwk) })

  const credentialOffer = await client.resolveCredentialOffer(options.offer)
  checks.report('openid4vci: credential offer', true, credentialOffer.credential_issuer)
  const issuerMetadata = await client.resolveIssuerMetadata(credentialOffer.credential_issuer)
  const draft = issuerMetadata.originalDraftVersion ?? 'unknown'
  checks.expect('openid4vci: issuer metadata is of version 1.0', String(draft).startsWith('V1'), draft)
  const id = credentialOffer.credential_configuration_ids[0]
  const configuration = issuerMetadata.credentialIssuer.credential_configurations_supported[id]
  checks.expect('openid4vci: the offered configuration has the expected format', configuration?.format === options.format, configuration?.format)
  const wantsCode = Boolean(credentialOffer.grants?.[preAuthorizedCodeGrantIdentifier]?.tx_code)
  checks.expect('openid4vci: tx_code as announced', wantsCode === Boolean(options['tx-code']), `offer wants a code: ${wantsCode}`)

  const { accessTokenResponse } = await client.retrievePreAuthorizedCodeAccessTokenFromOffer({ credentialOffer, issuerMetadata, txCode: options['tx-code'] })
  checks.report('openid4vci: token', true)
  const { c_nonce: nonce } = await client.requestNonce({ issuerMetadata })
  checks.report('openid4vci: nonce', true)
  const bindings = configuration.cryptographic_binding_methods_supported ?? []
  const binding = options.binding ?? (options.format === 'jwt_vc_json' && bindings.includes('did:jwk') ? 'did:jwk' : 'jwk')
  const proof = await client.createCredentialRequestJwtProof({ issuerMetadata, credentialConfigurationId: id, nonce, signer: proofSigner(binding, publicJwk) })
  const { credentialResponse } = await client.retrieveCredentials({
    issuerMetadata,
    credentialConfigurationId: id,
    accessToken: accessTokenResponse.access_token,
    proofs: { jwt: [proof.jwt] },
  })
  checks.expect('openid4vci: one credential for one key', credentialResponse.credentials?.length === 1, JSON.stringify(Object.keys(credentialResponse)))
  return { credential: credentialResponse.credentials[0].credential, publicJwk: await exportJWK(await importJWK(publicJwk, 'ES256')) }
}
