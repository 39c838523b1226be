// A wallet of draft 13 on @sphereon/oid4vci-client 0.16.
import sphereon from 'sphereon-draft-13'
import { Keys, notify } from './sphereon.mjs'

const { AccessTokenClient, CredentialOfferClient, CredentialRequestClientBuilderV1_0_13, MetadataClientV1_0_13, ProofOfPossessionBuilder, sendNotification } = sphereon

// variants are what --with may name.
export const variants = ['deferred', 'dpop', 'notification', 'private-key-jwt', 'scope']

// succeeded returns the body of a success.
function succeeded(what, { successBody, errorBody, origResponse }) {
  if (!successBody) throw new Error(`${what}: ${origResponse.status} ${JSON.stringify(errorBody)}`)
  return successBody
}

// accept takes the offer; see openid4vci.mjs.
export async function accept(checks, options) {
  const keys = await new Keys(options).make()
  const credentialOffer = await CredentialOfferClient.fromURI(options.offer)
  const { credential_issuer: issuer, credential_configuration_ids: [id] } = credentialOffer.credential_offer
  const metadata = await MetadataClientV1_0_13.retrieveAllMetadata(issuer)
  const configuration = metadata.credentialIssuerMetadata.credential_configurations_supported[id]
  checks.expect('sphereon: the offered configuration has the expected format', configuration?.format === options.format, configuration?.format)
  const token = succeeded('token', await new AccessTokenClient().acquireAccessToken({
    credentialOffer,
    metadata,
    pin: options['tx-code'],
    asOpts: await keys.authorizationServer(),
    createDPoPOpts: keys.dpop,
    additionalParams: options.with.has('scope') ? { scope: configuration.scope } : undefined,
  }))
  checks.expect('sphereon: a c_nonce in the token response', token.c_nonce)
  const builder = CredentialRequestClientBuilderV1_0_13.fromCredentialOffer({ credentialOffer, metadata })
    .withTokenFromResponse(token)
    .withDeferredCredentialAwait(options.with.has('deferred'), 1000)
  const client = builder.build()
  const proofInput = ProofOfPossessionBuilder.fromAccessTokenResponse({ accessTokenResponse: token, callbacks: keys.proofCallbacks, version: client.version() })
    .withIssuer(issuer)
    .withAlg(options.alg)
  if (keys.binding.kid) proofInput.withKid(keys.binding.kid)
  else proofInput.withJWK(keys.binding.jwk)
  const response = succeeded('credential', await client.acquireCredentialsUsingProof({
    proofInput,
    format: options.format,
    credentialTypes: configuration.vct ?? configuration.credential_definition.type,
    createDPoPOpts: keys.dpop,
  }))
  checks.expect('sphereon: deferred, if that was expected', client.isDeferred() === options.with.has('deferred'))
  checks.expect('sphereon: one credential', response.credential, Object.keys(response))
  if (options.with.has('notification')) await notify(checks, sendNotification, metadata, response.notification_id, token.access_token)
  return [{ credential: response.credential, holder: keys.holder.publicJwk }]
}
