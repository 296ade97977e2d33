"""An unchanged google-cloud-aiplatform: a deployed endpoint and a publisher's model over REST, and what it says over gRPC. Prints a
line for each."""

import sys

import grpc
import google.oauth2.credentials
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.cloud import aiplatform
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcTransport

base_url, model, other = sys.argv[1:]
PredictionServiceClient = aiplatform.gapic.PredictionServiceClient
place = "projects/p/locations/global"
client = PredictionServiceClient(
    transport="rest",
    client_options=ClientOptions(api_endpoint=base_url),
    credentials=google.oauth2.credentials.Credentials("unused"),
)
deployed = client.predict(endpoint=f"{place}/endpoints/7", instances=[{"content": "x"}])
print("deployed:", len(deployed.predictions), flush=True)
contents = [{"role": "user", "parts": [{"text": "What is the answer?"}]}]
request = {"model": f"{place}/publishers/google/models/{model}", "contents": contents}
answer = client.generate_content(request=request)
print("whole:", answer.candidates[0].content.parts[0].text, answer.usage_metadata.total_token_count, flush=True)
parts = list(client.stream_generate_content(request=request))
print("parts:", len(parts), "".join(part.candidates[0].content.parts[0].text for part in parts), flush=True)
try:
    client.predict(endpoint=f"{place}/publishers/google/models/{other}", instances=[{}])
except exceptions.GoogleAPICallError as error:
    print("other:", type(error).__name__, error.message[error.message.index("signet:") :], flush=True)
address = base_url.removeprefix("http://")
# as it is made where nothing is said of a transport: gRPC over TLS
default = PredictionServiceClient(
    client_options=ClientOptions(api_endpoint=address), credentials=google.oauth2.credentials.Credentials("unused")
)
plaintext = PredictionServiceClient(transport=PredictionServiceGrpcTransport(channel=grpc.insecure_channel(address)))
for name, over_grpc in [("plaintext", plaintext), ("by default", default)]:
    try:
        over_grpc.predict(endpoint=f"{place}/endpoints/7", instances=[{}], timeout=10)
    except exceptions.GoogleAPICallError as error:
        print(f"{name}:", type(error).__name__, error.message, flush=True)
print("over", flush=True)
