"""What MLflow runs to load a packaged recommender: code that lies beside the model, and nothing pickled."""

from mlflow.models import set_model

from avrec_spark.serving.pyfunc import PackagedRecommender

set_model(PackagedRecommender())
