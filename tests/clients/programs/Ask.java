// Asks a transformer for a decision, with the default HttpClient and a body of unknown length: java Ask.java URL MODEL < record.json

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.SequenceInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Collections;
import java.util.List;

class Ask {
  public static void main(String[] arguments) throws Exception {
    URI uri = URI.create(arguments[0] + "/v1/models/" + arguments[1] + ":predict");
    HttpRequest request = HttpRequest.newBuilder(uri)
        .header("content-type", "application/json")
        .POST(BodyPublishers.ofInputStream(Ask::body))
        .build();
    HttpResponse<String> answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    if (answer.statusCode() != 200) {
      throw new IllegalStateException(answer.body());
    }
    System.out.println(answer.body());
  }

  private static InputStream body() {
    return new SequenceInputStream(Collections.enumeration(List.of(text("{\"instances\": ["), System.in, text("]}"))));
  }

  private static InputStream text(String text) {
    return new ByteArrayInputStream(text.getBytes());
  }
}
